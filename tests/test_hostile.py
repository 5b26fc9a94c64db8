"""A thousand files made to harm: each ends in a right answer, or in one line that says why not.

Every file goes through the command as users run it. While it runs, every import, file, process and
socket that Python opens is seen: nothing that a file names may be among them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from liontool.checkpoint.system import SYSTEM
from support import hostile_files, hostile_runs
from support.hostile_files import KINDS
from support.hostile_runs import Run, Runner, complaint, contents
from support.torch_loader import Loader

FILES = 72
"""Of each kind: 1,008 in all."""
CONVERT = ("convert", "--lr-ratio", "3")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs the command in this process, which has run it before: nothing is left to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SYSTEM, "fsync", lambda _: None)  # the disk would take most of the time
        runner = Runner(patch, tmp_path_factory.mktemp("trap"))
        folder = tmp_path_factory.mktemp("honest")
        honest = hostile_files.honest_files(folder)
        for name in honest:
            for arguments in [("inspect",), ("inspect", "--json"), (*CONVERT, "--dry-run")]:
                run = runner.run(folder, *arguments, name)
                assert not run.code, run.err
        yield runner


@pytest.fixture(scope="module")
def loader() -> Iterator[Loader]:
    loader = Loader()
    yield loader
    loader.close()


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files(kind: str, tmp_path: Path, runner: Runner, loader: Loader) -> None:
    """No crash, no hang, no code run, no file left; what is converted holds the same moments."""
    found: list[str] = []
    codes: Counter[str] = Counter()
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = KINDS[kind](Random(f"{kind} {number}"), folder, str(runner.marker))
        as_json = ("--json",) if number % 2 else ()
        for command in (("inspect",), CONVERT):
            before = contents(folder)
            run = runner.run(folder, *command, *as_json, "--", name)
            fault = complaint(run) or left_behind(run, command, before, contents(folder))
            if not fault and command is CONVERT and run.code == 0:
                fault = loader.complaint(folder / name, output(folder, before))
            found += [f"{kind} {number}, {command[0]}: {fault}"] if fault else []
            codes[f"{command[0]} {run.code}"] += 1
        shutil.rmtree(folder)
    assert not found, "\n".join(found)
    assert not runner.marker.exists()
    assert codes["convert 2"] > FILES / 10  # they are hostile indeed


def left_behind(run: Run, command: tuple[str, ...], before: dict, after: dict) -> str:
    """What there is that should not be; "" where a file was made that should be, or none."""
    if any(after.get(name) != mark for name, mark in before.items()):
        return "the source was touched"
    new = {name.split(os.sep)[0] for name in after.keys() - before.keys()}
    expected = 1 if command is CONVERT and run.code == 0 else 0
    return "" if len(new) == expected else f"new files: {sorted(new)}"


def output(folder: Path, before: dict) -> Path:
    """What a conversion made."""
    (new,) = (path for path in folder.iterdir() if path.name not in before)
    return new


def test_the_watch_sees(runner: Runner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Imports, processes, files and code are seen while the command runs."""

    def evil(*_: object) -> int:
        subprocess.run(["true"], check=True)
        (tmp_path.parent / "elsewhere").write_text("x")
        eval("1 + 1")
        import liontool_trap

        return liontool_trap.spring() or 0

    monkeypatch.setattr(hostile_runs, "main", evil)
    events = " ".join(runner.run(tmp_path, "inspect").events)
    for word in ("subprocess.Popen", "elsewhere", "compile", "import liontool_trap"):
        assert word in events
    assert runner.marker.exists()
    runner.marker.unlink()

"""Thousands of files that were good once: each is answered with findings, or in one line.

`make fuzz` takes 2,000 of each container and kind of folder, `make test` a share of them. In a
folder one file is damaged at a time, each in its turn.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from liontool.checkpoint.system import SYSTEM
from support import hostile_honest
from support.hostile_containers import put
from support.hostile_honest import honest
from support.hostile_mutants import mutant
from support.hostile_runs import Runner, complaint, contents

FILES = int(os.environ.get("LIONTOOL_MUTANTS", "300"))
FOLDERS = int(os.environ.get("LIONTOOL_MUTANTS", "60"))
SHOWN = 10
"""Of so many files one is shown as text: drawing takes longer than looking."""

# The words after `liontool`, with NAME and HONEST for the mutated file and the one it was made of;
# and the exit codes besides 2 that it may end with.
COMMANDS: tuple[tuple[tuple[str, ...], tuple[int, ...]], ...] = (
    (("inspect", "NAME"), (0,)),
    (("inspect", "NAME", "--stats", "--tensors"), (0,)),
    (("verify", "NAME", "--code"), (0, 1)),
    (("verify", "NAME", "--against", "HONEST", "--no-values"), (0, 1)),
    (("diff", "HONEST", "NAME"), (0, 1)),
    (("edit", "NAME", "rename:*=x.*", "--dry-run"), (0,)),
)


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    """Runs the command in this process, which has run it before: nothing is left to import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SYSTEM, "fsync", lambda _: None)
        runner = Runner(patch, tmp_path_factory.mktemp("trap"))
        folder = tmp_path_factory.mktemp("warm")
        for container in (*hostile_honest.FILES, *hostile_honest.FOLDERS):
            name = honest(container).put(folder)
            for words, answers in COMMANDS:
                for options in ([], ["--json"]):
                    run = runner.run(folder, *_words(words, name, name), *options)
                    refused = "index" in name and words[0] == "edit"  # it wants the folder
                    assert run.code in ((2,) if refused else answers), run.err
        yield runner


def _words(words: tuple[str, ...], name: str, honest: str) -> list[str]:
    return [{"NAME": name, "HONEST": honest}.get(word, word) for word in words]


@pytest.mark.parametrize("container", hostile_honest.FILES)
def test_mutants(container: str, tmp_path: Path, runner: Runner) -> None:
    """No traceback, no hang, no code run, nothing written; what inspect refuses, verify faults."""
    codes = _survived(container, FILES, tmp_path, runner)
    assert codes["verify 1"] > FILES / 4  # most of them are damaged indeed, and are checkpoints


@pytest.mark.parametrize("container", hostile_honest.FOLDERS)
def test_mutants_in_folders(container: str, tmp_path: Path, runner: Runner) -> None:
    """The same where the damage is in one file of several."""
    codes = _survived(container, FOLDERS, tmp_path, runner)
    assert codes["verify 1"] > FOLDERS / 4


def _survived(container: str, count: int, folder: Path, runner: Runner) -> Counter[str]:
    """How often each command ended in which way, once nothing was found that it must not do."""
    whole = honest(container)
    twin = whole.put(folder, "honest-")
    whole.put(folder)
    found: list[str] = []
    codes: Counter[str] = Counter()
    for number in range(count):
        name, data = mutant(container, number)
        put(folder, name, data)
        before = contents(folder)
        options = ["--json"] if number % SHOWN else []
        ends: dict[str, int] = {}
        for words, answers in COMMANDS:
            run = runner.run(folder, *_words(words, whole.name, twin), *options)
            fault = complaint(run, answers)
            if contents(folder) != before:
                fault = fault or "something was written"
            found += [f"{container} {number}, {' '.join(words)}: {fault}"] if fault else []
            codes[f"{words[0]} {run.code}"] += 1
            ends.setdefault(words[0], run.code)
        if ends["inspect"] == 2 and ends["verify"] == 0:
            found.append(f"{container} {number}: inspect refuses it, verify finds nothing")
        put(folder, name, whole.files[name])
    assert not found, "\n".join(found[:20])
    assert not runner.marker.exists()
    return codes

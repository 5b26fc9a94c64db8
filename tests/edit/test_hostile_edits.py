"""Files made to harm, and honest ones with some damage: edits end in a file or in one error."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from liontool import edit_checkpoint
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LiontoolError
from support import hostile_mutants
from support.hostile_files import KINDS
from support.hostile_honest import FILES as CONTAINERS
from support.hostile_honest import FOLDERS, honest

FILES, MUTANTS = 12, 60
WORDS = (
    "rename:*=x.*", "drop:*", "keep:*a*", "drop:state.*", "lr=x0.5", "weight_decay=0", "meta.a=b",
    "keep:state.*exp_avg", "exp_avg:zeros", "exp_avg:bf16", "strip",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk would take most of the time."""
    monkeypatch.setattr(SYSTEM, "fsync", lambda _: None)


def outcomes(path: Path, output: Path) -> Counter[str]:
    """What became of one word after another; anything but an error of ours comes through."""
    found: Counter[str] = Counter()
    for word in WORDS:
        try:
            edit_checkpoint(path, [word], output=output, force=True)
            found["edited"] += 1
        except LiontoolError as error:
            found[type(error).__name__] += 1
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_hostile_files(kind: str, tmp_path: Path) -> None:
    """No crash, and no change of the source."""
    for number in range(FILES):
        folder = tmp_path / str(number)
        folder.mkdir()
        name = KINDS[kind](Random(f"{kind} {number}"), folder, str(tmp_path / "marker"))
        before = listing(folder)
        found = outcomes(folder / name, tmp_path / f"out{number}{Path(name).suffix}")
        assert found.total() == len(WORDS)
        assert listing(folder) == before
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("container", CONTAINERS + FOLDERS)
def test_mutated_files(container: str, tmp_path: Path) -> None:
    """Some damage is refused, some does not matter."""
    found: Counter[str] = Counter()
    for number in range(MUTANTS):
        path = tmp_path / honest(container).put(tmp_path)
        name, data = hostile_mutants.mutant(container, number)
        (tmp_path / name).write_bytes(data)
        found += outcomes(path, tmp_path / f"out{path.suffix}")
    assert found.total() == MUTANTS * len(WORDS)
    assert found["edited"] < found.total()


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all that is in a folder."""
    return {
        str(path): (status.st_size, status.st_mtime_ns)
        for at, _, files in os.walk(folder)
        for path in (Path(at) / name for name in files)
        for status in (path.lstat(),)
    }

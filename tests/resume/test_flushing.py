"""What a start reports is durable by then, whoever wrote it."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.layout import COMMIT, step_name
from liontool.checkpoint.system import SYSTEM
from liontool.errors import ResumeError
from liontool.resume.flushing import flush_checkpoint, flush_run
from support.checkpoints import TENSORS, TREE, saved
from support.small_runs import begun, left, let_go


@pytest.fixture
def flushed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """What was flushed, as device and inode, and every line that was said until then."""
    found: list[tuple[int, int]] = []
    real = SYSTEM.fsync

    def fsync(fd: int) -> None:
        status = os.fstat(fd)
        found.append((status.st_dev, status.st_ino))
        real(fd)

    monkeypatch.setattr(SYSTEM, "fsync", fsync)
    return found


def identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino


def test_what_a_resume_reports(tmp_path: Path, flushed: list[tuple[int, int]]) -> None:
    """Each file of the checkpoint, then its names, its own name and the run's, before it is said.

    A save that was killed after its last rename has left a name that a power failure takes back.
    """
    folder = tmp_path / "run"
    left(folder, 2)
    (one,) = [path for path in checkpoints(folder) if path.name == step_name(2)]
    before: list[tuple[int, int]] = []

    class Said(list[str]):
        def append(self, line: str) -> None:
            if line.startswith("resumed"):
                before.extend(flushed)

    flushed.clear()
    run = begun(folder, Said())
    saved_step = run.saved_step
    let_go(run)
    assert saved_step == 2
    files = {identity(path) for path in one.iterdir()}
    assert len(files) == 4
    assert set(before[:4]) == files
    assert before[4:] == [identity(path) for path in (one, folder, tmp_path)]


def test_a_folder_that_somebody_else_made(tmp_path: Path, flushed: list[tuple[int, int]]) -> None:
    """`mkdir` flushes nothing: a fresh start makes the name of the run's folder durable."""
    folder = tmp_path / "run"
    folder.mkdir()
    let_go(begun(folder, []))
    assert identity(tmp_path) in flushed


def test_a_link_to_the_folder(tmp_path: Path, flushed: list[tuple[int, int]]) -> None:
    """The folder of the link, and that of what it leads to."""
    (tmp_path / "real" / "run").mkdir(parents=True)
    (tmp_path / "links").mkdir()
    link = tmp_path / "links" / "run"
    link.symlink_to(tmp_path / "real" / "run")
    flush_run(link, print)
    wanted = {identity(path) for path in (link, link.parent, tmp_path / "real")}
    assert set(flushed) == wanted


def failing(path: Path, error: int) -> Callable[..., int]:
    real = SYSTEM.open

    def opened(at: str | Path, *rest: int, **more: int) -> int:
        if Path(at) == path:
            raise OSError(error, os.strerror(error))
        return real(at, *rest, **more)

    return opened


def test_a_folder_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder above that may not be opened is a line: those who may not read it can train."""
    said: list[str] = []
    monkeypatch.setattr(SYSTEM, "open", failing(tmp_path, errno.EACCES))
    run = tmp_path / "run"
    run.mkdir()
    flush_run(run, said.append)
    assert len(said) == 1
    assert said[0].startswith(f"{tmp_path}: cannot be flushed: Permission denied; if {run} was")


@pytest.mark.parametrize("name", [TENSORS, TREE, COMMIT])
def test_a_disk_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What cannot be flushed is not said to be saved."""
    one = saved(tmp_path, 100)
    monkeypatch.setattr(SYSTEM, "open", failing(one / name, errno.EIO))
    message = r"step-0000000100: cannot be flushed to the disk: Input/output error; that is no"
    with pytest.raises(ResumeError, match=message):
        flush_checkpoint(one)


def test_a_run_that_cannot_be_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same holds for the names in the run's folder."""
    monkeypatch.setattr(SYSTEM, "open", failing(tmp_path, errno.EIO))
    with pytest.raises(ResumeError, match="cannot be flushed to the disk: Input/output error"):
        flush_run(tmp_path, print)


def test_only_files_of_ours(tmp_path: Path, flushed: list[tuple[int, int]]) -> None:
    """What a file browser left is not opened, nor is what is no file."""
    one = saved(tmp_path, 100)
    (one / ".DS_Store").write_bytes(b"")
    os.mkfifo(one / "pipe")
    flush_checkpoint(one)
    assert len(flushed) == 5

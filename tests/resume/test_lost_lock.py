"""A run whose folder or lock is taken away while it trains writes into nobody else's."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.layout import LOCK
from liontool.checkpoint.run_folder.lock import RunLock, locked
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LiontoolError, LockedError
from liontool.resume import Run, saving
from support.checkpoints import everything
from support.small_runs import begun, let_go, trained


def moved(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def deleted(folder: Path) -> None:
    (folder / LOCK).unlink()


def exchanged(folder: Path) -> None:
    """Another run came, and has ended."""
    deleted(folder)
    (folder / LOCK).touch()


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.mark.parametrize("lose", [moved, deleted])
def test_two_runs(tmp_path: Path, said: list[str], lose: Callable[[Path], None]) -> None:
    """The first one saves and removes nothing more where a second one has begun."""
    folder = tmp_path / "run"
    first = trained(begun(folder, said, keep={"last": 2}), 3)
    lose(folder)
    second = trained(begun(folder, [], keep={"last": 9}), 2)
    before = everything(folder)
    message = (
        r"run: run\.lock is not the file that this run has locked: the folder was moved or the "
        r"file exchanged, and another run may be there now, so nothing is saved or removed; move"
    )
    with pytest.raises(LockedError, match=message):
        trained(first, 1)
    assert everything(folder) == before
    assert first.saved_step == 3
    let_go(first)
    let_go(second)


def test_a_moved_folder(tmp_path: Path, said: list[str]) -> None:
    """No other one is made; once it is back the run saves again."""
    folder = tmp_path / "run"
    run = trained(begun(folder, said), 1)
    moved(folder)
    with pytest.raises(LockedError, match="the folder was moved"):
        trained(run, 1)
    assert not folder.exists()
    folder.with_name("moved").rename(folder)
    assert run.save() == 2
    let_go(run)


def test_training_goes_on(tmp_path: Path, said: list[str]) -> None:
    """A save that falls due is only said to have failed."""
    folder = tmp_path / "run"
    run = begun(folder, said, save_every=1)
    moved(folder)
    trained(run, 2, saving=False)  # the save of step 1 begins before the second batch
    while run._saves.busy:
        time.sleep(0.001)
    assert trained(run, 2, saving=False).step_count == 4
    let_go(run)
    assert any("nothing is saved or removed" in line and "goes on" in line for line in said)
    assert not folder.exists()


def test_a_deleted_lock(tmp_path: Path, said: list[str]) -> None:
    """Where nobody else came, the run locks its folder again and goes on saving."""
    folder = tmp_path / "run"
    run = begun(folder, said)
    deleted(folder)
    assert trained(run, 1).saved_step == 1
    with pytest.raises(LockedError, match="this process trains in it already"):
        RunLock().acquire(folder, wait=0)
    let_go(run)
    with locked(folder, wait=0):
        assert len(checkpoints(folder)) == 1


def test_lost_during_a_save(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is looked at again when the last byte is written, so nothing gets its name."""
    folder = tmp_path / "run"
    run = begun(folder, said)
    real = SYSTEM.fsync

    def fsync(fd: int) -> None:
        exchanged(folder)
        real(fd)

    monkeypatch.setattr(SYSTEM, "fsync", fsync)
    with pytest.raises(LockedError):
        trained(run, 1)
    let_go(run)
    assert os.listdir(folder) == [LOCK]


def test_lost_before_retention(
    tmp_path: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is there then may be another run's: nothing is removed, and a line says so."""
    folder = tmp_path / "run"
    run = trained(begun(folder, said, keep={"last": 2}), 2)
    real = saving.write_checkpoint

    def written(*arguments: object, **options: object) -> Path:
        path = real(*arguments, **options)  # type: ignore[arg-type]
        exchanged(folder)
        return path

    monkeypatch.setattr(saving, "write_checkpoint", written)
    trained(run, 1)
    let_go(run)
    assert len(checkpoints(folder)) == 3
    assert any(line.startswith("old checkpoints were not removed: ") for line in said)


def test_check(tmp_path: Path) -> None:
    """A lock that is held, and that of its folder, is no error; a released one is."""
    lock = RunLock()
    lock.acquire(tmp_path)
    lock.check(tmp_path)
    lock.release()
    with pytest.raises(LockedError):
        lock.check(tmp_path)


def test_errors_are_ours(tmp_path: Path, said: list[str]) -> None:
    """The end of such a run is an error of ours, and lets the folder go."""
    folder = tmp_path / "run"
    run: Run = trained(begun(folder, said), 1)
    exchanged(folder)
    trained(run, 1, saving=False)
    with pytest.raises(LiontoolError, match=r"run\.lock is not the file"):
        run.close()
    let_go(begun(folder, said))

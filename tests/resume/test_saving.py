"""Saves beside the training."""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LiontoolError, PublishError, ReadError, ResumeError
from liontool.resume import saving
from liontool.resume.retention import Keep
from liontool.resume.saving import Saver
from liontool.resume.snapshot import Body, Snapshot


def snapshot(step: int, body: Body | None = None) -> Snapshot:
    """A state without tensors."""
    return Snapshot(step, 0, None, body or Body(b"", memoryview(b"x" * 100)), {}, {})


def steps(run: Path) -> list[int]:
    """The steps of the checkpoints that are there, all of them whole."""
    return sorted(check(path).step for path in run.glob("step-*"))


@pytest.fixture
def said() -> list[str]:
    """What the saver says."""
    return []


@pytest.fixture
def saver(tmp_path: Path, said: list[str]) -> Iterator[Saver]:
    """A saver of an empty run."""
    made = Saver(tmp_path, Keep(last=2), saved_step=None, say=said.append)
    yield made
    made.failure()
    made.wait()


def test_a_missing_package_is_told_before_training(tmp_path, monkeypatch) -> None:
    """Without xxhash no run begins: every save of it would fail."""
    monkeypatch.setitem(sys.modules, "xxhash", None)
    with pytest.raises(ReadError, match=r"xxhash, which is not installed; run: pip install"):
        Saver(tmp_path, Keep(), saved_step=None, say=print)


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Holds every flush back until it is set."""
    event = threading.Event()
    fsync = SYSTEM.fsync

    def slow(fd: int) -> None:
        assert event.wait(10)
        fsync(fd)

    monkeypatch.setattr(SYSTEM, "fsync", slow)
    yield event
    event.set()


def test_a_step_is_saved_when_it_is_durable(saver: Saver, gate, tmp_path: Path) -> None:
    """`start` returns at once; `saved_step` follows when the checkpoint is there."""
    saver.start(snapshot(3))
    assert (saver.busy, saver.saved_step, steps(tmp_path)) == (True, None, [])
    gate.set()
    saver.wait()
    assert (saver.busy, saver.saved_step, steps(tmp_path)) == (False, 3, [3])


def test_two_are_never_in_flight(saver: Saver, gate) -> None:
    """A second start is refused while the first save is not done."""
    saver.start(snapshot(3))
    with pytest.raises(RuntimeError, match="a save is in flight; wait for it"):
        saver.start(snapshot(4))
    gate.set()
    saver.wait()
    assert saver.saved_step == 3


def test_the_newest_stay(saver: Saver, tmp_path: Path, said: list[str]) -> None:
    """Retention follows each save."""
    for step in (1, 2, 3, 4):
        saver.start(snapshot(step))
        saver.wait()
    assert (steps(tmp_path), said) == ([3, 4], [])


def test_what_was_saved_before_is_known(tmp_path: Path) -> None:
    """A run that went on begins with the step that it loaded."""
    assert Saver(tmp_path, Keep(), saved_step=9, say=print).saved_step == 9


def fail(monkeypatch: pytest.MonkeyPatch, error: BaseException, call: str = "write") -> None:
    """Let every call of a name fail."""

    def failing(*_: object) -> None:
        raise error

    monkeypatch.setattr(SYSTEM, call, failing)


def test_a_failure_is_told_once(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A save that failed says why, one time; the saved step stays."""
    fail(monkeypatch, OSError(errno.EIO, "Input/output error"))
    saver.start(snapshot(3))
    saver._thread.join()
    error = saver.failure()
    assert isinstance(error, PublishError)
    assert "step-0000000003: cannot be written: Input/output error" in str(error)
    assert (saver.failure(), saver.saved_step, saver.busy) == (None, None, False)
    saver.wait()


def test_waiting_raises_what_went_wrong(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wait` raises the error of the save, and then nothing is left to tell."""
    fail(monkeypatch, OSError(errno.EIO, "Input/output error"))
    saver.start(snapshot(3))
    with pytest.raises(PublishError, match="cannot be written: Input/output error"):
        saver.wait()
    assert saver.failure() is None


def test_nothing_is_told_of_a_save_in_flight(saver: Saver, gate) -> None:
    """There is no failure before the save is done."""
    saver.start(snapshot(3))
    assert saver.failure() is None
    gate.set()
    saver.wait()


def test_a_failure_that_nobody_asked_for_is_said(
    saver: Saver, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A save that fails just before the next one begins is not forgotten."""
    with monkeypatch.context() as patch:
        fail(patch, OSError(errno.EIO, "Input/output error"))
        saver.start(snapshot(3))
        saver._thread.join()
    saver.start(snapshot(4))
    saver.wait()
    assert saver.saved_step == 4
    assert len(said) == 1
    assert said[0].endswith("cannot be written: Input/output error; training goes on")


@pytest.mark.skipif(sys.platform != "linux", reason="only there a thread has a priority")
def test_the_training_goes_first(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread of a save has a lower priority, and the one that trains keeps its own."""
    seen, before = [], os.getpriority(os.PRIO_PROCESS, 0)
    statvfs = SYSTEM.statvfs

    def looking(path: Path) -> os.statvfs_result:
        seen.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return statvfs(path)

    monkeypatch.setattr(SYSTEM, "statvfs", looking)
    saver.start(snapshot(3))
    saver.wait()
    assert seen == [max(before, saving._NICE)]
    assert saving._NICE > 0
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (MemoryError("no room"), "step 3 was not saved: MemoryError: no room"),
        (KeyboardInterrupt(), "step 3 was not saved: KeyboardInterrupt"),
        (ValueError("odd"), "step 3 was not saved: ValueError: odd"),
    ],
    ids=["memory", "interrupt", "value"],
)
def test_whatever_ends_the_thread_is_told(
    error: BaseException,
    message: str,
    saver: Saver,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """No exception is lost with the thread, and the next save goes on."""
    with monkeypatch.context() as patch:
        fail(patch, error)
        saver.start(snapshot(3))
        with pytest.raises(ResumeError, match=message):
            saver.wait()
    assert list(tmp_path.iterdir()) == []
    saver.start(snapshot(4))
    saver.wait()
    assert (saver.saved_step, steps(tmp_path)) == (4, [4])


def test_a_thread_that_can_say_nothing_is_told(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where memory is too short even for a message there is one all the same."""

    def short(*_: object) -> LiontoolError:
        raise MemoryError

    monkeypatch.setattr(saving, "_told", short)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    fail(monkeypatch, MemoryError())
    saver.start(snapshot(3))
    with pytest.raises(ResumeError, match="step 3 was not saved: the thread broke off"):
        saver.wait()
    assert saver.saved_step is None


def test_a_thread_that_cannot_start_is_told(saver: Saver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system without threads fails the save, and not the training."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        saver.start(snapshot(3))
    assert not saver.busy
    with pytest.raises(ResumeError, match="step 3 was not saved: RuntimeError: can't start"):
        saver.wait()


@pytest.mark.parametrize("call", ["rename_new", "rename", "rmtree"])
def test_retention_that_fails_is_said_and_no_failure(
    call: str, saver: Saver, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An old checkpoint that does not go costs a line; the save counts."""
    for step in (1, 2):
        saver.start(snapshot(step))
        saver.wait()
    calls = getattr(SYSTEM, call)

    def failing(path: Path, *rest: object) -> object:
        if "step-0000000001" in str(path) or saver.saved_step == 3:
            raise OSError(errno.EIO, "Input/output error")
        return calls(path, *rest)

    monkeypatch.setattr(SYSTEM, call, failing)
    saver.start(snapshot(3))
    saver.wait()
    assert (saver.saved_step, saver.failure()) == (3, None)
    assert {2, 3} <= set(steps(tmp_path))
    assert len(said) <= 1


def test_retention_that_ends_the_thread_is_no_failure(
    saver: Saver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The step is durable by then: not even a thread that dies afterwards makes the save fail."""

    def dying(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(saver, "_prune", dying)
    saver.start(snapshot(3))
    saver.wait()
    assert (saver.saved_step, saver.failure()) == (3, None)


def test_retention_that_breaks_is_said(
    saver: Saver, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even an error that nobody thought of makes a good save a failed one."""

    def broken(*_: object) -> None:
        raise MemoryError("no room")

    monkeypatch.setattr(saving, "prune", broken)
    saver.start(snapshot(3))
    saver.wait()
    assert saver.saved_step == 3
    assert said == ["old checkpoints were not removed: MemoryError: no room"]

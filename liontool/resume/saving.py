"""Saves beside the training: one at a time, in a thread."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from liontool.checkpoint.run_folder.hashing import new_hash
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.lock import RunLock
from liontool.errors import LiontoolError, ResumeError
from liontool.resume.quarantine import make_way
from liontool.resume.retention import Keep, prune
from liontool.resume.snapshot import Snapshot
from liontool.resume.writing import write_checkpoint

_NICE = 5
"""Behind the training, each step of which waits for all of its threads, but not far behind: on a
machine that has too few cores for its loader workers a save must come to its end as well."""


class Saver:
    """Writes the checkpoints of a run, and removes those that are not to be kept.

    Args:
        run: The folder.
        keep: Which checkpoints stay.
        saved_step: The newest durable step that is there already.
        say: Told what is worth a line, and no reason to stop.
        lock: That of the folder; None where nobody else can come.

    Raises:
        ReadError: xxhash is not installed.

    Attributes:
        saved_step: The newest durable step.
    """

    def __init__(
        self,
        run: Path,
        keep: Keep,
        *,
        saved_step: int | None,
        say: Callable[[str], None],
        lock: RunLock | None = None,
    ) -> None:
        new_hash()  # what is not installed is told now, and not after hours by the first save
        self._run = run
        self._keep = keep
        self._say = say
        self._lock = lock
        self._thread: threading.Thread | None = None
        self._error: LiontoolError | None = None
        self.saved_step = saved_step

    @property
    def busy(self) -> bool:
        """Whether a save is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, snapshot: Snapshot, *, replace: bool = False) -> None:
        """Begin to write a snapshot, whose body must not change until it is written.

        Args:
            snapshot: What to write.
            replace: Whether a checkpoint of the same step gives way to it, in one move.
        """
        if self.busy:
            raise RuntimeError("a save is in flight; wait for it before the next")
        if (untold := self.failure()) is not None:
            self._say(f"{untold}; training goes on")
        # Said of a thread that can say nothing itself any more.
        self._error = ResumeError(f"step {snapshot.step} was not saved: the thread broke off")
        thread = threading.Thread(target=self._save, args=(snapshot, replace), name="liontool-save")
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads
            self._error = _told(snapshot.step, error)
        else:
            self._thread = thread

    def wait(self) -> None:
        """Wait until nothing is in flight.

        Raises:
            LiontoolError: The save failed, and nobody has been told.
        """
        if self._thread is not None:
            self._thread.join()
        if (error := self.failure()) is not None:
            raise error

    def failure(self) -> LiontoolError | None:
        """Why the last save failed, once; None while it is in flight."""
        if self.busy:
            return None
        error, self._error = self._error, None
        return error

    def _save(self, snapshot: Snapshot, replace: bool) -> None:
        _step_back()
        try:
            self._check_lock()
            self._make_way(snapshot.step)
            write_checkpoint(self._run, snapshot, self._check_lock, replace=replace)
        except BaseException as error:
            self._error = _told(snapshot.step, error)
            return
        self.saved_step = snapshot.step
        self._error = None
        self._prune()

    def _check_lock(self) -> None:
        """Everything here goes by path, and the path can have become that of another run."""
        if self._lock is not None:
            self._lock.check(self._run)

    def _make_way(self, step: int) -> None:
        if self.saved_step is not None:
            for moved in make_way(self._run / step_name(step)):
                self._say(f"{step_name(step)} is damaged and was moved to {moved}")

    def _prune(self) -> None:
        """Retention; what goes wrong with it costs only disk."""
        try:
            self._check_lock()
            failures = prune(self._run, self._keep, self.saved_step).failures
        except BaseException as error:
            failures = (f"old checkpoints were not removed: {type(error).__name__}: {error}",)
        for failure in failures:
            self._say(failure)


def _step_back() -> None:
    """Give this thread a lower priority; on Linux alone a thread has its own."""
    if sys.platform == "linux":
        with suppress(OSError):
            own = threading.get_native_id()
            nice = max(os.getpriority(os.PRIO_PROCESS, own), _NICE)
            os.setpriority(os.PRIO_PROCESS, own, nice)


def _told(step: int, error: BaseException) -> LiontoolError:
    """What to tell of a save that failed, whatever ended it."""
    if isinstance(error, LiontoolError):
        return error
    told = ResumeError(f"step {step} was not saved: {type(error).__name__}: {error}")
    told.__cause__ = error
    return told

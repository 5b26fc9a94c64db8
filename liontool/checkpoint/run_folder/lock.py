"""The lock that keeps a second run out of a folder.

The system holds it for an open file, so it ends with the process, however that ends; what stands in
the file only tells people who has it. Children that are forked close the file at once: a loader
worker that outlives its run must not keep the next one out.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import stat
import sys
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from liontool.checkpoint.run_folder.layout import LOCK
from liontool.checkpoint.staging import flush_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LockedError, ReadError, ResumeError
from liontool.escape import safe

WAIT = 15.0
"""Seconds that a start waits: so long may a run that was told to stop take to save."""

_PAUSE = 0.05
_MAX_BYTES = 4096
_LONGEST_COMMAND = 300
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TAKEN = (errno.EWOULDBLOCK, errno.EACCES)


@dataclass(frozen=True)
class Holder:
    """The process that has the lock, as it wrote itself down; None where it did not.

    Attributes:
        pid: Its number on its host.
        host: The host's name.
        started: When it took the lock, seconds since 1970.
        command: How it was started.
    """

    pid: int | None = None
    host: str | None = None
    started: float | None = None
    command: str | None = None

    def __str__(self) -> str:
        """ "process 4711 (python train.py) on node3 since 2026-11-21 00:40 UTC"."""
        words = "another process" if self.pid is None else f"process {self.pid}"
        words += "" if self.command is None else f" ({self.command})"
        words += "" if self.host is None else f" on {self.host}"
        words += "" if self.started is None else f" since {_when(self.started)}"
        return safe(words)

    @classmethod
    def of_this_process(cls) -> Holder:
        """Who asks."""
        command = " ".join([os.path.basename(sys.executable), *sys.argv])[:_LONGEST_COMMAND]
        return cls(os.getpid(), socket.gethostname(), time.time(), command)


class RunLock:
    """The lock of one run; taken with `acquire`, given back with `release`."""

    def __init__(self) -> None:
        self._fd: int | None = None
        self._folder: os.stat_result | None = None

    def acquire(self, folder: Path, wait: float = WAIT) -> None:
        """Take the lock of `folder`, which is made, durably, where it is not there yet.

        Args:
            folder: The folder of the run.
            wait: Seconds to wait for whoever has it.

        Raises:
            LockedError: Another process, or another `Run` of this one, has it.
            ResumeError: The folder cannot be made or locked.
        """
        path, deadline, tried = folder / LOCK, time.monotonic() + wait, False
        try:
            make_folder(folder)
            while not self._take(path):
                if _is_ours(path) or (tried and time.monotonic() >= deadline):
                    raise _locked(folder)
                tried = True
                time.sleep(_PAUSE)
            self._folder = os.stat(folder)
        except OSError as error:
            raise ResumeError(
                f"{folder}: cannot be locked: {error.strerror or error}; "
                "a run needs a folder that it may write to, on a file system with locks"
            ) from error

    def release(self) -> None:
        """Give it back; without effect where it is not held."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            _HELD.discard(self)
            fcntl.flock(fd, fcntl.LOCK_UN)  # also where some child still has the file open
            os.close(fd)

    def is_at(self, path: Path) -> bool:
        """Whether this lock is held, and that of the file at `path`."""
        return self._fd is not None and _is_at(path, self._fd)

    def check(self, folder: Path) -> None:
        """See that it is still the lock of `folder`; a file that was deleted is made again.

        Raises:
            LockedError: The folder was moved, or another file has the lock's name.
        """
        if not self.is_at(folder / LOCK) and not self._is_back(folder):
            raise LockedError(
                f"{folder}: {LOCK} is not the file that this run has locked: the folder was moved "
                "or the file exchanged, and another run may be there now, so nothing is saved or "
                "removed; move the folder back, or stop this run"
            )

    def forget(self) -> None:
        """Close the file and leave the lock to the parent; for children after a fork."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    def _is_back(self, folder: Path) -> bool:
        """Lock again where the file is gone: another run would have left one of its own."""
        path, old = folder / LOCK, self._fd
        try:
            if old is None or self._folder is None or os.path.lexists(path):
                return False
            if not os.path.samestat(os.stat(folder), self._folder) or not self._take(path):
                return False
        except OSError:
            return False
        os.close(old)
        return True

    def _take(self, path: Path) -> bool:
        fd = _opened(path, os.O_RDWR | os.O_CREAT)
        try:
            if not _flock(fd, fcntl.LOCK_EX) or not _is_at(path, fd):
                return False
            _write_down(fd)
            self._fd, fd = fd, -1
        finally:
            if fd >= 0:
                os.close(fd)
        _HELD.add(self)
        return True


@contextmanager
def locked(folder: Path, wait: float = WAIT) -> Iterator[None]:
    """Hold the lock of a run in the body; arguments and errors are those of `RunLock.acquire`."""
    lock = RunLock()
    lock.acquire(folder, wait)
    try:
        yield
    finally:
        lock.release()


def holder(folder: Path) -> Holder | None:
    """Who has the lock of a run, or None. Takes nothing, and waits for nobody.

    Raises:
        ReadError: The system refused to say.
        ResumeError: What bears the name of the lock is no file.
    """
    path = folder / LOCK
    try:
        fd = _opened(path, os.O_RDONLY)
        try:
            # A shared lock is refused while a run has its own, and is gone again at once. A run
            # that starts in this very moment tries a second time.
            return None if _flock(fd, fcntl.LOCK_SH) else _read_down(fd)
        finally:
            os.close(fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error


def make_folder(folder: Path) -> None:
    """Make a folder and whatever is missing above it, so that no power failure takes them back.

    Raises:
        OSError: The system refused.
    """
    if folder.is_dir():
        return
    make_folder(folder.parent)
    with suppress(FileExistsError):
        SYSTEM.mkdir(folder, 0o777)
    flush_folder(folder.parent)


_HELD: weakref.WeakSet[RunLock] = weakref.WeakSet()


def _forget_all() -> None:
    for lock in list(_HELD):
        lock.forget()
    _HELD.clear()


os.register_at_fork(after_in_child=_forget_all)


def _locked(folder: Path) -> LockedError:
    if _is_ours(folder / LOCK):
        return LockedError(f"{folder}: this process trains in it already; close() that Run first")
    fd = _opened(folder / LOCK, os.O_RDONLY)
    try:
        who = _read_down(fd)
    finally:
        os.close(fd)
    return LockedError(
        f"{folder}: is in use by {who}; wait until it has ended, or give another folder"
    )


def _is_ours(path: Path) -> bool:
    return any(lock.is_at(path) for lock in _HELD)


def _opened(path: Path, flags: int) -> int:
    """The file, opened; whatever else took its name is refused, and no link is followed."""
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(os.lstat(path).st_mode):
            raise ResumeError(f"{path}: is no regular file; take it away")
    return os.open(path, flags | _FLAGS, 0o666)


def _flock(fd: int, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    return True


def _is_at(path: Path, fd: int) -> bool:
    """Whether the locked file still has its name: somebody may have deleted it."""
    try:
        return os.path.samestat(os.lstat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _write_down(fd: int) -> None:
    with suppress(OSError):  # a full disk: the lock holds all the same
        data = json.dumps(asdict(Holder.of_this_process())).encode()
        os.ftruncate(fd, 0)
        os.pwrite(fd, data, 0)


def _read_down(fd: int) -> Holder:
    """What stands in the file; nothing of it is believed but for a message."""
    try:
        noted = json.loads(os.pread(fd, _MAX_BYTES, 0))
        kinds = {"pid": int, "host": str, "started": float, "command": str}
        known = {name: noted[name] for name, kind in kinds.items() if type(noted[name]) is kind}
        _when(known.get("started", 0.0))
        return Holder(**known)
    except (ValueError, TypeError, KeyError, OverflowError, OSError, RecursionError):
        return Holder()


def _when(time: float) -> str:
    return f"{datetime.fromtimestamp(time, timezone.utc):%Y-%m-%d %H:%M} UTC"

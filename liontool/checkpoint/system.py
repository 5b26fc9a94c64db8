"""The system calls that change files, in one small table: tests make each of them fail in turn."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

StrPath = str | os.PathLike[str]

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2


def _unsupported(*_: Any, **__: Any) -> int:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


def _renameat2(old: StrPath, new: StrPath, flags: int) -> None:
    """Linux's renameat2, which Python does not offer; ENOSYS where the C library has none."""
    import ctypes

    function = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", _unsupported)
    if function(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), flags):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(old), None, os.fspath(new))


def _rename_new(old: StrPath, new: StrPath) -> None:
    """Rename, but fail with EEXIST if `new` is there."""
    _renameat2(old, new, _RENAME_NOREPLACE)


def _exchange(old: StrPath, new: StrPath) -> None:
    """Swap two names in one step, so that neither is ever missing."""
    _renameat2(old, new, _RENAME_EXCHANGE)


def _push(fd: int, offset: int, length: int) -> None:
    """Start to write a range to the disk, and do not wait for it."""
    if hasattr(os, "posix_fadvise"):  # Linux writes dirty pages that are said to be done with
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)


class System:
    """Every call that `publish`, `in_place` and `copying` make; the attributes can be exchanged."""

    def __init__(self) -> None:
        self.open = os.open
        self.close = os.close
        self.write = os.write
        self.pwrite = os.pwrite
        self.preadv = os.preadv
        self.lseek = os.lseek
        self.copy_file_range: Callable[[int, int, int, int], int] = getattr(
            os, "copy_file_range", _unsupported
        )
        self.sendfile = os.sendfile
        self.ftruncate = os.ftruncate
        self.push = _push
        self.fsync = os.fsync
        self.statvfs = os.statvfs
        self.chmod = os.chmod
        self.mkdir = os.mkdir
        self.symlink = os.symlink
        self.link = os.link
        self.rename = os.rename
        self.rename_new = _rename_new
        self.exchange = _exchange
        self.unlink = os.unlink
        self.rmdir = os.rmdir
        self.rmtree = _rmtree


def _rmtree(folder: StrPath) -> None:
    import shutil  # only for folders: `inspect` should not pay for it

    shutil.rmtree(folder)


SYSTEM = System()

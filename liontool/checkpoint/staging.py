"""A hidden name beside a target, and its way to the target and back; see `publish`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.system import SYSTEM
from liontool.errors import NoSpaceError, OutputExistsError, PublishError

SUFFIX = ".liontool-tmp"
"""How the hidden names end. One that is left after a power failure can be deleted."""

NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
"""How to open a file that must not be there yet."""

_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Hook = Callable[[], None]


@dataclass(frozen=True)
class InPlace:
    """What is to become of a file or folder that the new one, with its mode, takes the place of.

    Attributes:
        keep: The name under which the old one stays; None to remove it.
    """

    keep: Path | None


@dataclass(frozen=True)
class WaysOut:
    """How messages end: what whoever asked for the target can do.

    Attributes:
        exists: Where the target is there already.
        no_space: Where it does not fit.
    """

    exists: str
    no_space: str


COMMAND = WaysOut(
    exists="give another name with -o, or replace it with --force",
    no_space="make room there, or name another disk with -o",
)
"""For what a command of ours writes."""


class Stage:
    """One target, and whatever has been done on the way to it."""

    def __init__(
        self,
        target: Path,
        force: bool,
        *,
        is_folder: bool = False,
        in_place: InPlace | None = None,
        ways_out: WaysOut = COMMAND,
    ) -> None:
        self.shown = target
        self.ways_out = ways_out
        self.target = Path(os.path.realpath(target))
        self.force = force or in_place is not None
        self.is_folder = is_folder
        self.in_place = in_place
        self.keep = in_place.keep if in_place is not None else None
        hidden = f".{os.getpid()}-{os.urandom(4).hex()}"
        self.temporary = self.target.parent / f"{hidden}{SUFFIX}"
        self.aside = self.target.parent / f"{hidden}.old{SUFFIX}"
        self._identity: tuple[int, int] | None = None
        self._old: tuple[int, int] | None = None
        self._exchanged = False
        self._reserved = False
        self._durable = False

    @contextmanager
    def guarded(self, size: int) -> Iterator[None]:
        """Check the target, and on any exception leave everything as it was."""
        try:
            self.check_target()
            self._check_space(size)
            yield
        except BaseException as error:
            left = self._clean_up_surely()
            if isinstance(error, OSError):
                if self._durable and not left:
                    return  # only removing the old one failed, and the second try did it
                raise self._explained(error, size, left) from error
            raise

    def publish(self, before_publish: Hook | None) -> None:
        """Let the finished temporary become the target."""
        self._identity = _identity(self.temporary)
        self._old = _identity(self.target)
        if self.in_place is not None:
            SYSTEM.chmod(self.temporary, stat.S_IMODE(os.stat(self.target).st_mode))
        if before_publish is not None:
            before_publish()
        try:
            if self.force and os.path.lexists(self.target):
                self._replace()
                self._keep_old()
            else:
                self._appear()
        except FileExistsError:
            raise self._exists() from None
        flush_folder(self.target.parent)
        self._durable = True
        self._clean_up()

    # --- the way there --------------------------------------------------------------------------

    def check_target(self) -> None:
        """See that nothing is in the way of the target, or only what `force` replaces."""
        if self.keep is not None and os.path.lexists(self.keep):
            raise self._is_kept()
        if not self.target.parent.is_dir():
            raise PublishError(
                f"{self.shown}: there is no folder {self.target.parent}; make it first"
            )
        try:
            mode = os.lstat(self.target).st_mode
        except FileNotFoundError:
            return
        if not self.force:
            raise self._exists()
        if not (stat.S_ISDIR(mode) if self.is_folder else stat.S_ISREG(mode)):
            kind = "a folder" if self.is_folder else "a regular file"
            raise PublishError(f"{self.shown}: is not {kind}, so it is not replaced by one")

    def _exists(self) -> OutputExistsError:
        return OutputExistsError(f"{self.shown}: is there already; {self.ways_out.exists}")

    def _is_kept(self) -> OutputExistsError:
        return OutputExistsError(
            f"{self.keep}: is there already, and would be lost; move it away, or keep no backup: "
            "--no-backup"
        )

    def _appear(self) -> None:
        """Take the target's name; FileExistsError if somebody else has taken it meanwhile."""
        try:
            SYSTEM.rename_new(self.temporary, self.target)
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        try:
            SYSTEM.link(self.temporary, self.target)
        except FileExistsError:
            raise
        except OSError:  # folders have no hard links, nor have some file systems
            self._reserve()
            SYSTEM.rename(self.temporary, self.target)

    def _reserve(self) -> None:
        """Take the name with something empty, over which a rename is allowed."""
        if self.is_folder:
            SYSTEM.mkdir(self.target, 0o777)
            self._reserved = True
        else:
            fd = SYSTEM.open(self.target, NEW, 0o666)
            self._reserved = True
            SYSTEM.close(fd)

    def _replace(self) -> None:
        """Take the target's name; the old one keeps another until all is durable."""
        try:
            SYSTEM.exchange(self.temporary, self.target)
            self._exchanged = True
            return
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        try:
            SYSTEM.link(self.target, self.aside)
        except OSError:  # see _appear; the target is missing for a moment
            SYSTEM.rename(self.target, self.aside)
        SYSTEM.rename(self.temporary, self.target)

    def _keep_old(self) -> None:
        """Give the old one the name that it is kept under; an error if that is taken meanwhile."""
        if self.keep is None:
            return
        try:
            SYSTEM.rename_new(self._hidden_old(), self.keep)
            return
        except FileExistsError:
            raise self._is_kept() from None
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        if os.path.lexists(self.keep):
            raise self._is_kept()
        SYSTEM.rename(self._hidden_old(), self.keep)

    def _hidden_old(self) -> Path:
        return self.temporary if self._exchanged else self.aside

    # --- the way back ---------------------------------------------------------------------------

    def _clean_up_surely(self) -> bool:
        """Clean up in spite of a second interrupt; whether something is left all the same."""
        for _ in range(2):
            with suppress(OSError, KeyboardInterrupt):
                self._clean_up()
                return False
        return True

    def _clean_up(self) -> None:
        if not self._durable:
            self._take_back()
        if os.path.lexists(self.target) or not self.force:
            self._remove(self.aside)
        self._remove(self.temporary)

    def _take_back(self) -> None:
        """Undo whatever has been done to the name of the target."""
        if self.keep is not None and self._old is not None and _identity(self.keep) == self._old:
            SYSTEM.rename(self.keep, self._hidden_old())
        if self._is_ours(self.target):
            if not os.path.lexists(self.temporary):
                SYSTEM.rename(self.target, self.temporary)
            elif self._is_ours(self.temporary):  # two links to one file
                SYSTEM.unlink(self.target)
            else:  # the temporary name is the old file's
                SYSTEM.exchange(self.temporary, self.target)
        elif self._reserved:
            self._remove(self.target)
        if os.path.lexists(self.aside) and not os.path.lexists(self.target):
            SYSTEM.rename(self.aside, self.target)

    def _is_ours(self, path: Path) -> bool:
        return self._identity is not None and _identity(path) == self._identity

    def _remove(self, path: Path) -> None:
        if os.path.lexists(path):
            (SYSTEM.rmtree if self.is_folder else SYSTEM.unlink)(path)

    def _explained(self, error: OSError, size: int, left: bool) -> PublishError:
        if error.errno in _DISK_FULL:
            return self._no_space(size)
        text = f"{self.shown}: cannot be written: {error.strerror or error}"
        if self._durable:
            text = f"{self.shown}: is written, but the old one stayed behind: {error.strerror}"
        return PublishError(f"{text}; delete {self.temporary}" if left else text)

    def _check_space(self, size: int) -> None:
        room = SYSTEM.statvfs(self.target.parent)
        # Some network file systems do not know their size and say 0.
        if room.f_blocks and size > room.f_bavail * room.f_frsize:
            raise self._no_space(size)

    def _no_space(self, size: int) -> NoSpaceError:
        folder = self.target.parent
        room = os.statvfs(folder)
        free = room.f_bavail * room.f_frsize
        # What was written is gone again, and a quota is not what the disk has.
        why = ", but a quota or another writer was in the way" if free >= size else ""
        return NoSpaceError(
            f"{self.shown}: needs {size:,} bytes, and {folder} has {free:,} bytes free{why}; "
            f"{self.ways_out.no_space}"
        )


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = os.lstat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def flush_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    fd = SYSTEM.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        SYSTEM.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system whose folders need no flush
            raise
    finally:
        SYSTEM.close(fd)

"""Makes files and folders appear, whole and durable, or not at all; nothing else here does.

A result is written under a hidden name beside its target, flushed to the disk and renamed, and the
folder is flushed too. With `force` the old one stays until then: the two names are exchanged, and
what goes wrong before the last flush is taken back. Clean-up looks at what is there and not at what
was meant to be done, so it is right after an interrupt at any point.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from liontool.checkpoint.staging import (
    COMMAND,
    NEW,
    SUFFIX,
    Hook,
    InPlace,
    Stage,
    WaysOut,
    flush_folder,
)
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError, UnsafePathError

__all__ = [
    "SUFFIX",
    "InPlace",
    "NewFile",
    "NewFolder",
    "WaysOut",
    "check_target",
    "new_file",
    "new_folder",
    "remove",
]


@dataclass(frozen=True)
class NewFile:
    """A file that is being written, at `fd`."""

    fd: int


@contextmanager
def new_file(
    target: Path,
    *,
    size: int,
    force: bool,
    before_publish: Hook | None = None,
    in_place: InPlace | None = None,
) -> Iterator[NewFile]:
    """A new file to be written in the body; it appears as `target` when the body is done.

    Args:
        target: Its name; a symbolic link is followed.
        size: Bytes that it will take on disk.
        force: Whether to replace a file that is there.
        before_publish: Called after the last byte; an exception calls everything off.
        in_place: Given if the target is replaced because that is what was asked for.

    Raises:
        OutputExistsError: `target` is there and `force` is false.
        NoSpaceError: Too little room.
        PublishError: Anything else went wrong; nothing was left behind.
    """
    stage = Stage(target, force, in_place=in_place)
    with stage.guarded(size):
        with _created(stage.temporary) as fd:
            yield NewFile(fd)
            SYSTEM.fsync(fd)
        stage.publish(before_publish)


def check_target(
    target: Path, *, force: bool, is_folder: bool, in_place: InPlace | None = None
) -> None:
    """Find out before any long work what `new_file` or `new_folder` would say to the target.

    Raises:
        OutputExistsError: `target` is there and `force` is false.
        PublishError: It is of the other kind, or there is no folder for it.
    """
    try:
        Stage(target, force, is_folder=is_folder, in_place=in_place).check_target()
    except OSError as error:
        raise PublishError(f"{target}: cannot be written to: {error.strerror}") from error


def remove(path: Path) -> None:
    """Take a file away for good; one that is not there is no error.

    Raises:
        OSError: The system refused.
    """
    if os.path.lexists(path):
        SYSTEM.unlink(path)
        flush_folder(path.parent)


class NewFolder:
    """A folder that is being filled, at `path` until it is published."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._folders = {path}

    @contextmanager
    def file(self, name: str) -> Iterator[NewFile]:
        """A new file to be written in the body. `name` is relative, with slashes."""
        with _created(self._place(name)) as fd:
            yield NewFile(fd)
            SYSTEM.fsync(fd)

    def link(self, name: str, target: str) -> None:
        """A symbolic link to `target`, as it is."""
        SYSTEM.symlink(target, self._place(name))

    def folder(self, name: str) -> None:
        """A folder with nothing in it."""
        self._make(self._place(name))

    def flush(self) -> None:
        """Make all names in the folder durable."""
        for folder in self._folders:
            flush_folder(folder)

    def _place(self, name: str) -> Path:
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts or not relative.parts:
            raise UnsafePathError(f"'{name}' leads out of the folder that is being written")
        path = self.path / relative
        self._make(path.parent)
        return path

    def _make(self, folder: Path) -> None:
        if folder not in self._folders:
            self._make(folder.parent)
            SYSTEM.mkdir(folder, 0o777)
            self._folders.add(folder)


@contextmanager
def new_folder(
    target: Path,
    *,
    size: int,
    force: bool,
    before_publish: Hook | None = None,
    in_place: InPlace | None = None,
    ways_out: WaysOut = COMMAND,
) -> Iterator[NewFolder]:
    """A new folder to be filled in the body; it appears as `target` when the body is done.

    Arguments and errors are those of `new_file`; `ways_out` ends the messages of the errors.
    """
    stage = Stage(target, force, is_folder=True, in_place=in_place, ways_out=ways_out)
    with stage.guarded(size):
        SYSTEM.mkdir(stage.temporary, 0o777)
        folder = NewFolder(stage.temporary)
        yield folder
        folder.flush()
        stage.publish(before_publish)


@contextmanager
def _created(path: Path) -> Iterator[int]:
    """A descriptor of a file that was not there; its mode is 0666 less the umask."""
    fd = SYSTEM.open(path, NEW, 0o666)
    try:
        yield fd
    finally:
        SYSTEM.close(fd)

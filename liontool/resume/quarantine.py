"""Damaged checkpoints are moved aside, once another one has been verified; none is deleted."""

from __future__ import annotations

import errno
import os
from itertools import count
from pathlib import Path

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import Choice
from liontool.checkpoint.run_folder.layout import QUARANTINE
from liontool.checkpoint.staging import flush_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import DamagedError, PublishError, UnfinishedError

_UNSUPPORTED = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EPERM)


def quarantine(choice: Choice) -> tuple[Path, ...]:
    """Move the refused checkpoints into `quarantine/`; returns where they are now.

    Only for the holder of the run's lock. While nothing good is left nothing is moved: whoever
    rescues the run should find it as it was.

    Raises:
        PublishError: The system refused; what was not moved is where it was.
    """
    if choice.chosen is None or not choice.refused:
        return ()
    return _move_all([one.path for one in choice.refused], choice.run)


def make_way(target: Path) -> tuple[Path, ...]:
    """Move a damaged checkpoint aside whose name a save needs, if the start could not do it.

    Only for the holder of the run's lock, and while another checkpoint is known to be good.

    Raises:
        PublishError: The system refused again.
        ReadError: The system refused to read it.
    """
    if os.path.lexists(target):
        try:
            check(target)
        except (DamagedError, UnfinishedError):
            return _move_all([target], target.parent)
    return ()


def _move_all(paths: list[Path], run: Path) -> tuple[Path, ...]:
    folder = run / QUARANTINE
    try:
        _make(folder)
        moved = tuple(_move(path, folder) for path in paths)
        flush_folder(folder)  # first the new names, then that the old ones are gone
        flush_folder(run)
    except OSError as error:
        raise PublishError(
            f"{folder}: damaged checkpoints cannot be moved there: {error.strerror or error}; "
            f"move them yourself: {', '.join(path.name for path in paths)}"
        ) from error
    return moved


def _make(folder: Path) -> None:
    if not folder.is_dir():
        SYSTEM.mkdir(folder, 0o777)
        flush_folder(folder.parent)


def _move(path: Path, folder: Path) -> Path:
    """Rename to the first name that is free: one step can be damaged several times."""
    for number in count():
        target = folder / (f"{path.name}.{number}" if number else path.name)
        try:
            _rename_new(path, target)
            return target
        except FileExistsError:
            continue
    raise AssertionError("numbers do not end")


def _rename_new(path: Path, target: Path) -> None:
    try:
        SYSTEM.rename_new(path, target)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        SYSTEM.rename(path, target)

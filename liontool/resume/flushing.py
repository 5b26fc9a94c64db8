"""What a start finds is made durable before the start says that it is.

A process that was killed after the rename of a checkpoint, or a person who copied one, has left a
name that can be seen and that a power failure takes back.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from liontool.checkpoint.run_folder.layout import is_hidden
from liontool.checkpoint.staging import flush_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import ResumeError

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def flush_checkpoint(folder: Path) -> None:
    """Make the files of a checkpoint durable, and then their names; its own name is not.

    Raises:
        ResumeError: The system refused.
    """
    try:
        for path in sorted(folder.iterdir()):
            if not is_hidden(path.name) and stat.S_ISREG(os.lstat(path).st_mode):
                _flush_file(path)
        flush_folder(folder)
    except OSError as error:
        raise _refused(folder, error) from error


def flush_run(run: Path, say: Callable[[str], None]) -> None:
    """Make the names in a run's folder durable, and the folder's own name.

    Somebody else may have made the folder. Only the one above it is flushed: those further up were
    there before.

    Raises:
        ResumeError: The system refused.
    """
    try:
        flush_folder(run)
        for parent in sorted({run.parent, run.resolve().parent}):
            try:
                flush_folder(parent)
            except PermissionError as error:  # a folder of folders of others
                say(
                    f"{parent}: cannot be flushed: {error.strerror}; if {run} was made just now "
                    "a power failure may take it back"
                )
    except OSError as error:
        raise _refused(run, error) from error


def _flush_file(path: Path) -> None:
    fd = SYSTEM.open(path, _READ)
    try:
        SYSTEM.fsync(fd)
    finally:
        SYSTEM.close(fd)


def _refused(folder: Path, error: OSError) -> ResumeError:
    return ResumeError(
        f"{folder}: cannot be flushed to the disk: {error.strerror or error}; "
        "that is no fault of the checkpoints, so see to the disk"
    )

"""What a save that was killed left behind, and checkpoints on their way out.

A checkpoint is renamed before it is deleted: at no moment does half of one bear its name.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from liontool.checkpoint.run_folder.layout import is_leftover, leftover_name
from liontool.checkpoint.staging import flush_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError, ReadError


def leftovers(run: Path) -> list[Path]:
    """The hidden names of saves and removals that did not end.

    Raises:
        ReadError: The system refused to read the folder.
    """
    try:
        return [run / name for name in sorted(os.listdir(run)) if is_leftover(name)]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ReadError(f"{run}: cannot be read: {error.strerror or error}") from error


def delete_leftovers(run: Path) -> list[Path]:
    """Delete them, and say which they were. Only for the holder of the run's lock.

    Only after `returning.bring_back`: one of them may be the best checkpoint there is.

    Raises:
        PublishError: The system refused; all that could be deleted is.
        ReadError: The system refused to read the folder.
    """
    found, failures = leftovers(run), list[tuple[Path, OSError]]()
    for path in found:
        try:
            _delete(path)
        except OSError as error:
            failures.append((path, error))
    if failures:
        path, failure = failures[0]
        raise PublishError(
            f"{path}: was left by a save that was killed, and cannot be deleted: "
            f"{failure.strerror or failure}; delete it"
        ) from failure
    return found


def remove(checkpoint: Path) -> None:
    """Take a checkpoint away: its name first, and its files once the name is gone for good.

    Raises:
        OSError: The system refused. If the name is gone, the rest is a leftover.
    """
    hidden = checkpoint.with_name(leftover_name())
    SYSTEM.rename(checkpoint, hidden)
    flush_folder(checkpoint.parent)
    _delete(hidden)


def _delete(path: Path) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        SYSTEM.rmtree(path)
    else:
        SYSTEM.unlink(path)

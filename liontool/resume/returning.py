"""Whole checkpoints under hidden names get their names back.

An edit in place that was killed on a file system that cannot exchange two names has put the old
checkpoint aside, and the new one has no name yet. A save can be killed before its last rename.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from liontool.checkpoint.run_folder.checking import check, noted
from liontool.checkpoint.run_folder.choosing import Choice
from liontool.checkpoint.run_folder.layout import is_aside, step_name
from liontool.checkpoint.staging import flush_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import DamagedError, PublishError, ReadError, UnfinishedError
from liontool.resume.flushing import flush_checkpoint
from liontool.resume.leftovers import leftovers


def returning(choice: Choice) -> dict[Path, Path]:
    """The leftovers that are checkpoints, and the names that they lack. Moves nothing.

    What an edit had put aside is one whatever became of its bytes: it was saved. Of the others a
    whole one is, if it is newer than the one chosen: what is older was on its way out.

    Raises:
        ReadError: The system refused to read something.
        LayoutError: A newer liontool wrote one of them.
    """
    found = dict[Path, Path]()
    # First what was put aside: an edit that was killed did not happen.
    for path in sorted(leftovers(choice.run), key=lambda path: not is_aside(path.name)):
        target = _lacking(path, choice)
        if target is not None and target not in found.values():
            found[path] = target
    return found


def bring_back(choice: Choice) -> dict[Path, Path]:
    """Give them their names; returns which, and where they are now.

    Only for the holder of the run's lock.

    Raises:
        PublishError: The system refused.
        ResumeError: The system refused to flush.
        ReadError: The system refused to read something.
    """
    found = returning(choice)
    for path, target in found.items():
        flush_checkpoint(path)  # a name that is durable before its bytes would be a damaged one
        try:
            SYSTEM.rename(path, target)
            flush_folder(choice.run)
        except OSError as error:
            raise PublishError(
                f"{path}: is a checkpoint that lacks its name: {error.strerror or error}; "
                f"rename it to {target.name}"
            ) from error
    return found


def foreseen(choice: Choice) -> Choice:
    """What would be chosen once those that lack their names have them; moves nothing."""
    for path in returning(choice):
        try:
            commit = check(path)
        except (DamagedError, UnfinishedError):
            continue
        if choice.chosen is None or choice.commit is None:
            choice = replace(choice, chosen=path, commit=commit)
        elif commit.step > choice.commit.step:
            older = (choice.chosen, *choice.older)
            choice = replace(choice, chosen=path, commit=commit, older=older)
    return choice


def _lacking(path: Path, choice: Choice) -> Path | None:
    """The name that a leftover lacks; None if it is no checkpoint, or not without a name."""
    try:
        step = noted(path).step
        target = choice.run / step_name(step)
        if os.path.lexists(target):
            return None
        if not is_aside(path.name):
            if choice.commit is not None and step < choice.commit.step:
                return None
            check(path)
        return target
    except (DamagedError, UnfinishedError):
        return None
    except ReadError:
        if is_aside(path.name):
            raise
        return None  # nobody was told of it yet

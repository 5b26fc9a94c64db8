"""Where an edited checkpoint goes: beside the source, to a place of the user's, or in its place."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path

from liontool.checkpoint.publish import InPlace, check_target
from liontool.checkpoint.source import Source
from liontool.convert.outputs import beside, check_own_folder, keep_off
from liontool.errors import PublishError

BACKUP = ".orig"
"""What the name of the old one ends in, where it is replaced."""

_SAFETENSORS = ".safetensors"
_TORCH = (".pt", ".pth", ".bin", ".ckpt", ".tar")


def default_name(path: Path, *, is_folder: bool, is_run: bool = False) -> str:
    """ "run.ckpt" gives "run.edited.ckpt"; "checkpoint-500" gives "edited-checkpoint-500".

    The folder of a run gives another one: of "exp1" it is "exp1.edited".
    """
    if is_folder and not is_run:
        return f"edited-{path.name}"
    if is_run:
        return f"{path.name}.edited"
    ending = ".pth.tar" if path.name.endswith(".pth.tar") else path.suffix
    return f"{path.name.removesuffix(ending)}.edited{ending}"


def destination(source: Source, output: str | PathLike[str] | None) -> Path:
    """Where to write a new file or folder.

    Raises:
        PublishError: `output` is the source or lies in it, or has the suffix of something else.
    """
    real = Path(os.path.abspath(source.home))  # "." has no name of its own
    if output is None:
        name = default_name(real, is_folder=source.is_folder, is_run=source.is_of_run)
        return beside(source.home, name)
    path = Path(output)
    if os.path.realpath(path) in map(os.path.realpath, (source.path, source.home)):
        raise PublishError(f"{path}: is the source itself; to change it there: --in-place")
    keep_off(source.home, path)
    if not source.is_folder:
        _check_suffix(source, path)
    return path


def _check_suffix(source: Source, path: Path) -> None:
    is_safetensors = source.document().container == "safetensors"
    if path.suffix.lower() in (_TORCH if is_safetensors else (_SAFETENSORS,)):
        raise PublishError(
            f"{path}: an edit keeps the container, which is {source.document().container}; "
            f"end the name in '{source.path.suffix}'"
        )


def backup_of(source: Source) -> Path:
    """Where the old one is kept: beside the file itself, where the source is a link."""
    return Path(os.path.realpath(source.path) + BACKUP)


def check(path: Path, source: Source, *, force: bool, in_place: InPlace | None) -> None:
    """Find out before any long work whether the result could be written.

    Raises:
        PublishError: Something is in the way.
    """
    check_target(path, force=force, is_folder=source.is_folder, in_place=in_place)
    if source.is_folder and in_place is None:
        check_own_folder(path, is_run=source.is_of_run)

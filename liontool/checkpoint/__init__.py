"""From files to a Checkpoint and back; nothing that is read is ever executed."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from liontool.checkpoint.model import Checkpoint

__all__ = ["read_checkpoint"]


def read_checkpoint(
    path: str | PathLike[str], *, framework: str | None = None, optimizers: tuple[str, ...] = ()
) -> Checkpoint:
    """Read the optimizers and schedulers of a checkpoint, headers only.

    Args:
        path: A file or a folder that a training framework wrote.
        framework: "plain", "hf-trainer", "lightning", "liontool-state"; None to find out.
        optimizers: Paths in the tree where optimizers are, for layouts that liontool does not know.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        LayoutError: No optimizer was found, or several checkpoints were.
    """
    from liontool.checkpoint.frameworks import find
    from liontool.checkpoint.source import open_source

    return find(open_source(Path(path)), framework, optimizers)[1]

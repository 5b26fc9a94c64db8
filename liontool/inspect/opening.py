"""A checkpoint opened to be looked at: a file without an optimizer is fine here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

from liontool.checkpoint import frameworks
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import Source, open_source
from liontool.errors import AmbiguousError, LayoutError


@dataclass(frozen=True)
class Opened:
    """A source and what a framework found in it.

    Attributes:
        source: The file or folder.
        checkpoint: Optimizers and schedulers; None where there is no optimizer.
        no_optimizer: Why none was found, else None.
    """

    source: Source
    checkpoint: Checkpoint | None
    no_optimizer: str | None


def opened(
    path: str | PathLike[str], framework: str | None = None, optimizers: Sequence[str] = ()
) -> Opened:
    """Look at a file or folder; reads headers alone.

    Args:
        path: What a training framework wrote.
        framework: Its name where it should not be found out; then it must fit.
        optimizers: Take these alone, by their paths in the file, wherever they are.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` or `optimizers` were given and do not fit.
    """
    return opened_source(open_source(Path(path)), framework, optimizers)


def shown_path(path: str | PathLike[str], source: Source) -> str:
    """The path as it was given; for the folder of a run, that of the checkpoint in it."""
    return str(path) if source.choice is None else str(source.path)


def opened_source(
    source: Source, framework: str | None = None, optimizers: Sequence[str] = ()
) -> Opened:
    """The same for a source that is open already; raises the same errors."""
    try:
        return Opened(source, frameworks.find(source, framework, optimizers)[1], None)
    except AmbiguousError:
        raise
    except LayoutError as error:
        if framework is not None or optimizers:
            raise
        return Opened(source, None, str(error))

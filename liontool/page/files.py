"""Writes the page and the picture of a checkpoint; they appear whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path

from liontool.checkpoint.publish import check_target, new_file
from liontool.errors import OutputExistsError
from liontool.inspect.statistics import statistics
from liontool.inspect.summary import summarise
from liontool.page.page import html
from liontool.page.plot import check, draw


def write_pictures(
    path: str | PathLike[str],
    *,
    page: Path | None = None,
    plot: Path | None = None,
    framework: str | None = None,
    filters: Sequence[str] = (),
    optimizers: Sequence[str] = (),
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[Path, ...]:
    """Read a checkpoint and its values once, and write what they look like.

    Args:
        path: A file or a folder that a training framework wrote.
        page: Where the HTML page goes, if anywhere.
        plot: Where the picture goes, if anywhere: a name in .png or .svg.
        framework: Its name where it should not be found out; then it must fit.
        filters: Globs of the tensors to read, as for `statistics`.
        optimizers: Take these alone, by their paths in the file, wherever they are.
        force: Whether to replace files that are there.
        progress: Called with the bytes read so far and in all.

    Returns:
        The files that were written.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe, or changed meanwhile.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
        OutputExistsError: A file is there and `force` is false.
        PublishError: A file cannot be written.
        ValueError: Another suffix, no matplotlib for a picture, or twice the same file.
    """
    targets = [target for target in (page, plot) if target is not None]
    _check(Path(path), targets, plot, force)
    summary = summarise(path, framework, optimizers)
    found = statistics(path, framework, filters, progress, optimizers)
    if page is not None:
        _publish(page, html(summary, found).encode(), force)
    if plot is not None:
        _publish(plot, draw(summary, found, plot.suffix.lower().lstrip(".")), force)
    return tuple(targets)


def _check(path: Path, targets: Sequence[Path], plot: Path | None, force: bool) -> None:
    """All that can be known to fail before any long work."""
    if plot is not None:
        check(plot)
    real = [os.path.realpath(target) for target in targets]
    if len(set(real)) < len(real):
        raise ValueError(f"{targets[0]}: page and picture need a file each, name another")
    for target, place in zip(targets, real, strict=True):
        source = Path(os.path.realpath(path))
        if source == Path(place) or source in Path(place).parents:
            raise ValueError(f"{target}: is part of the checkpoint, name a file outside of it")
        try:
            check_target(target, force=force, is_folder=False)
        except OutputExistsError as error:  # it speaks of -o, which is not here
            words = "is there already; give another name, or replace it with --force"
            raise OutputExistsError(f"{target}: {words}") from error


def _publish(target: Path, content: bytes, force: bool) -> None:
    with new_file(target, size=len(content), force=force) as file:
        view = memoryview(content)
        while view:
            view = view[os.write(file.fd, view) :]

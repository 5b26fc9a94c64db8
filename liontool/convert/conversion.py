"""The whole conversion of a checkpoint on disk: read, apply the rule, write, report."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from os import PathLike
from pathlib import Path
from typing import Literal

from liontool.checkpoint import frameworks, writing
from liontool.checkpoint.publish import check_target
from liontool.checkpoint.source import Source, open_source
from liontool.checkpoint.writing import Progress
from liontool.convert import outputs
from liontool.convert.applying import check_convertible, converted
from liontool.convert.outputs import Destination, Kind
from liontool.convert.provenance import provenance
from liontool.convert.report import ConversionReport, Notice
from liontool.convert.reporting import class_that_loads, conversion_report
from liontool.convert.settings import DEFAULT_BETAS, Settings
from liontool.errors import PublishError


def convert_checkpoint(
    path: str | PathLike[str],
    *,
    lr_ratio: float | Literal["auto"],
    output: str | PathLike[str] | None = None,
    to: str = "lion",
    package: str = "liontool",
    momentum: str | None = None,
    betas: tuple[float, float] | None = None,
    decay: str = "scaled",
    zero_stale: bool = False,
    framework: str | None = None,
    optimizers: Collection[str] = (),
    allow: Collection[str] = (),
    force: bool = False,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> ConversionReport:
    """Turn a checkpoint of an AdamW run into one that the same framework resumes under Lion.

    Args:
        path: The file or folder; it is never touched.
        lr_ratio: What every learning rate is divided by, 3 to 10 in the papers; "auto" estimates it
            from the moments.
        output: Where to write; None puts the result beside the source. A suffix other than the
            source's, `.safetensors` or `.pt`, takes the optimizer's state alone.
        to: "lion" or "lion-sf".
        package: The Lion that will load the result, a key of `liontool.states.LIONS`.
        momentum: "copy", "scaled" or "zeros"; None for what is best for the package.
        betas: Lion's betas; None for (0.9, 0.99).
        decay: What happens to the weight decay: "scaled", "kept" or "decoupled".
        zero_stale: Write zeros where AdamW had stopped moving an element.
        framework: Who wrote the checkpoint; None to find out.
        optimizers: Paths of the optimizers to convert; all of them if empty.
        allow: Ids of refusals to override.
        force: Replace an existing output.
        dry_run: Write nothing and report everything. First moments are read, so that what would be
            refused is refused; an output that is in the way is a notice.
        progress: Called with the bytes written so far and the bytes in all.

    Raises:
        ValueError: An argument is not what is allowed.
        LiontoolError: See `liontool.errors`; nothing was written.
    """
    settings = Settings(
        ratio=1.0 if lr_ratio == "auto" else lr_ratio,
        to=to,
        package=package,
        momentum=momentum or "",
        betas=betas or DEFAULT_BETAS,
        decay=decay,
        zero_stale=zero_stale,
        allow=frozenset(allow),
    )
    source = open_source(path, deep=True, progress=progress)
    lens, before = frameworks.find(source, framework, tuple(optimizers))
    name = lens.output_name(Path(os.path.abspath(source.home)))  # "." has no name of its own
    place = outputs.destination(source, output, name)
    check_convertible(before, settings, chosen=bool(optimizers))
    if not dry_run:
        _check_target(source, place, force)
    result = converted(source, before, settings, auto=lr_ratio == "auto", progress=progress)
    record = provenance(source, before, settings, result.ratios)
    scan = () if "nonfinite" in allow else result.moments
    output_files = outputs.contents(
        source,
        place.kind,
        lambda: lens.plan(before, result.after),
        result.after,
        class_name=class_that_loads(settings),
        scan=scan,
        provenance=record,
    )
    if dry_run:
        writing.check(scan, progress)
        source.check_unchanged()
    else:
        writing.write(output_files, place.path, source=source, force=force, progress=progress)
    return conversion_report(
        result,
        source,
        lens,
        place,
        bytes_after=output_files.total,
        obstacles=tuple(_obstacles(source, place, force)) if dry_run else (),
        provenance=record,
        dry_run=dry_run,
    )


def _check_target(source: Source, place: Destination, force: bool) -> None:
    is_folder = source.is_folder and place.kind is Kind.SAME
    check_target(place.path, force=force, is_folder=is_folder)
    if is_folder:
        outputs.check_own_folder(place.path, is_run=source.is_of_run)


def _obstacles(source: Source, place: Destination, force: bool) -> Iterator[Notice]:
    """What would keep the output of a dry run from being written."""
    try:
        _check_target(source, place, force)
    except PublishError as error:
        yield Notice("output-refused", str(error))

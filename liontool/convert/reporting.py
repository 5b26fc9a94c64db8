"""The report of a conversion, put together from its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from liontool.checkpoint.frameworks import Framework, Target
from liontool.checkpoint.frameworks.resume_text import state_file
from liontool.checkpoint.learning_rates import notes
from liontool.checkpoint.source import Source
from liontool.convert.advice import advice
from liontool.convert.applying import Converted
from liontool.convert.decoupled_decay import highest_lr
from liontool.convert.describing import optimizer_report, state_bytes
from liontool.convert.outputs import Destination, Kind
from liontool.convert.report import ConversionReport, Notice
from liontool.convert.settings import Settings
from liontool.version import __version__


def conversion_report(
    result: Converted,
    source: Source,
    lens: Framework,
    place: Destination,
    *,
    bytes_after: int,
    obstacles: tuple[Notice, ...],
    provenance: Mapping[str, Any],
    dry_run: bool,
) -> ConversionReport:
    """All that the command prints.

    Args:
        result: The checkpoint before and after.
        source: What was read.
        lens: Who wrote it.
        place: Where the output is.
        bytes_after: Size of the output.
        obstacles: What would keep the output of a dry run from being written.
        provenance: The record that the output carries about itself.
        dry_run: Whether nothing was written.
    """
    before, after, settings = result.before, result.after, result.settings
    optimizers = zip(
        before.optimizers, result.changes, result.ratios, result.estimates, strict=True
    )
    return ConversionReport(
        source=str(source.path),
        output=str(place.path),
        framework=before.framework,
        container="folder" if source.is_folder else source.document().container,
        step=before.step,
        to=settings.to,
        package=settings.package,
        momentum=settings.momentum,
        optimizers=tuple(optimizer_report(*parts) for parts in optimizers),
        notices=(*_notices(result, lens, place), *obstacles),
        bytes_before=source.size,
        bytes_after=bytes_after,
        state_bytes_before=sum(map(state_bytes, before.optimizers)),
        state_bytes_after=sum(map(state_bytes, after.optimizers)),
        script=(_script(result, lens, place),),
        advice=tuple(advice(before, settings)),
        provenance=provenance,
        dry_run=dry_run,
    )


def class_that_loads(settings: Settings) -> str:
    """Class and version, for state files: "liontool.optim.Lion 0.1.0"."""
    words = settings.lion.imports[settings.to].split()
    return f"{words[1]}.{words[3]} {__version__}"


def _notices(result: Converted, lens: Framework, place: Destination) -> Iterator[Notice]:
    if place.kind is not Kind.SAME:
        yield Notice(
            "state-only", f"{place.path} holds the optimizer's state; weights are not in it"
        )
    warning = lens.output_warning(place.path) if place.kind is Kind.SAME else None
    if warning:
        yield Notice("output-name", warning)
    for item in result.estimates:
        yield from item.warnings if item else ()
    for change in result.changes:
        yield from (*change.warnings, *change.notes)
    for scheduler in result.after.loose_schedulers:
        yield Notice(
            "loose-scheduler",
            f"{scheduler.label}: cannot tell which optimizer it drives; scaled like all others",
        )
    for text in notes(result.after.loose_schedulers):
        yield Notice("scheduler", text)


def _script(result: Converted, lens: Framework, place: Destination) -> str:
    write = lens.resume_code if place.kind is Kind.SAME else state_file
    return write(result.after, _target(result), place.path)


def _target(result: Converted) -> Target:
    """The class that the script constructs, with what it must be told outside of the file."""
    settings = result.settings
    target = Target(settings.lion.imports[settings.to], constant_lr=settings.to == "lion-sf")
    if settings.decay != "decoupled" or not settings.lion.constructor:
        return target
    pairs = zip(result.before.optimizers, result.ratios, strict=True)
    highest = tuple(highest_lr(optimizer) / ratio for optimizer, ratio in pairs)
    return replace(target, argument=settings.lion.constructor, highest_lrs=highest)

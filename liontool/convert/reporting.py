"""The report of a conversion, put together from its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from liontool.checkpoint.frameworks import Framework, Target
from liontool.checkpoint.frameworks.resume_text import state_file
from liontool.checkpoint.learning_rates import notes
from liontool.checkpoint.model import Optimizer
from liontool.checkpoint.source import Source
from liontool.convert.advice import advice
from liontool.convert.applying import Converted
from liontool.convert.decoupled_decay import highest_lr
from liontool.convert.describing import optimizer_report
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
        notices=(*_of_source(source), *_notices(result, lens, place), *obstacles),
        bytes_before=source.size,
        bytes_after=bytes_after,
        state_bytes_before=sum(one.state_bytes for one in before.optimizers),
        state_bytes_after=sum(one.state_bytes for one in after.optimizers),
        script=(_script(result, lens, place),),
        advice=tuple(advice(before, settings)),
        provenance=provenance,
        dry_run=dry_run,
    )


def class_that_loads(settings: Settings) -> str:
    """Class and version, for state files: "liontool.optim.Lion 0.1.0"."""
    words = settings.lion.imports[settings.to].split()
    return f"{words[1]}.{words[3]} {__version__}"


def _of_source(source: Source) -> Iterator[Notice]:
    """What was read in place of something else: an older checkpoint, the record of an edit."""
    for text in source.passed_over():
        yield Notice("passed-over", f"{text}; {source.path.name} is converted in its place")
    for text in source.notices():
        yield Notice("torn-header", text)


def _notices(result: Converted, lens: Framework, place: Destination) -> Iterator[Notice]:
    if place.kind is not Kind.SAME:
        yield Notice(
            "state-only",
            f"{place.path} holds the optimizer's state; weights are not in it, and no scheduler "
            f"reads its state from it{_rates(result)}",
        )
    warning = lens.output_warning(place.path) if place.kind is Kind.SAME else None
    if warning:
        yield Notice("output-name", warning)
    for optimizer, estimate, change in zip(
        result.before.optimizers, result.estimates, result.changes, strict=True
    ):
        where = f"{optimizer.label}: " if len(result.changes) > 1 else ""
        warnings = estimate.warnings if estimate else ()
        absent = _absent_scheduler(optimizer, result)
        for notice in (*warnings, *change.warnings, *absent, *change.notes):
            yield replace(notice, text=where + notice.text.removeprefix(where))
    for scheduler in result.after.loose_schedulers:
        yield Notice(
            "loose-scheduler",
            f"{scheduler.label}: cannot tell which optimizer it drives; scaled like all others",
        )
    for text in notes(result.after.loose_schedulers):
        yield Notice("scheduler", text)


def _absent_scheduler(optimizer: Optimizer, result: Converted) -> Iterator[Notice]:
    """Only schedulers write `initial_lr`; one that is elsewhere would go on with AdamW's rates."""
    scheduled = any("initial_lr" in group.fields for group in optimizer.groups)
    found = optimizer.schedulers or result.before.loose_schedulers
    if scheduled and not found and result.settings.to == "lion":
        yield Notice(
            "absent-scheduler",
            "a scheduler drove this optimizer and is not in the source: divide every learning rate "
            f"that it keeps by {result.ratios[0]:g} too, or its next step sets AdamW's rate; "
            "better convert the file or folder that holds both",
        )


def _rates(result: Converted) -> str:
    """What a scheduler that is built anew has to know."""
    if result.settings.to == "lion-sf":
        return ""
    return f": build it with every learning rate divided by {result.ratios[0]:g}"


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

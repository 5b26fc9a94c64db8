"""The whole conversion of a checkpoint on disk: read, apply the rule, write, report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Literal

from liontool.checkpoint import frameworks, writing
from liontool.checkpoint.frameworks import Framework, Target
from liontool.checkpoint.frameworks.resume_text import state_file
from liontool.checkpoint.learning_rates import notes, scale_scheduler
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler
from liontool.checkpoint.publish import check_target
from liontool.checkpoint.source import Source, open_source
from liontool.checkpoint.writing import Progress
from liontool.convert import outputs
from liontool.convert.adamw_to_lion import adamw_to_lion, check_optimizer, recognised
from liontool.convert.adamw_to_lion_sf import adamw_to_lion_sf
from liontool.convert.advice import advice
from liontool.convert.change import Change
from liontool.convert.checking import check_schedulers, check_values
from liontool.convert.decoupled_decay import highest_lr
from liontool.convert.describing import optimizer_report, state_bytes
from liontool.convert.outputs import Destination, Kind
from liontool.convert.provenance import provenance
from liontool.convert.ratio import RatioEstimate, estimate
from liontool.convert.report import ConversionReport, Notice
from liontool.convert.settings import DEFAULT_BETAS, Settings
from liontool.convert.weights import weights_by_slot
from liontool.errors import AmbiguousError, PublishError, RefusedError, UnknownOptimizerError
from liontool.version import __version__

_RULES = {"lion": adamw_to_lion, "lion-sf": adamw_to_lion_sf}


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
        ratio=1.0 if lr_ratio == "auto" else float(lr_ratio),
        to=to,
        package=package,
        momentum=momentum or "",
        betas=betas or DEFAULT_BETAS,
        decay=decay,
        zero_stale=zero_stale,
        allow=frozenset(allow),
    )
    source = open_source(path)
    lens, before = frameworks.find(source, framework, tuple(optimizers))
    name = lens.output_name(Path(os.path.abspath(source.path)))  # "." has no name of its own
    place = outputs.destination(source, output, name)
    for optimizer in before.optimizers:
        _check(optimizer, before, settings)
    _check_loose(before.loose_schedulers, chosen=bool(optimizers))
    if not dry_run:
        _check_target(source, place, force)
    estimates: Sequence[RatioEstimate | None] = [None] * len(before.optimizers)
    if lr_ratio == "auto":
        estimates = _estimates(source, before, settings, progress)
    ratios = [found.ratio if found else settings.ratio for found in estimates]
    changes = tuple(
        _RULES[to](optimizer, replace(settings, ratio=ratio))
        for optimizer, ratio in zip(before.optimizers, ratios, strict=True)
    )
    after = _after(before, changes, ratios, settings)
    record = provenance(source, before, settings, ratios)
    scan = () if "nonfinite" in allow else tuple(m for change in changes for m in change.moments)
    result = outputs.contents(
        source,
        place.kind,
        lambda: lens.plan(before, after),
        after,
        class_name=f"{_class_path(settings)} {__version__}",
        scan=scan,
        provenance=record,
    )
    if dry_run:
        writing.check(scan, progress)
        source.check_unchanged()
    else:
        writing.write(result, place.path, source=source, force=force, progress=progress)
    return ConversionReport(
        source=str(path),
        output=str(place.path),
        framework=before.framework,
        container="folder" if source.is_folder else source.document().container,
        step=before.step,
        to=to,
        package=package,
        momentum=settings.momentum,
        optimizers=tuple(
            optimizer_report(*parts)
            for parts in zip(before.optimizers, changes, ratios, estimates, strict=True)
        ),
        notices=(
            *_notices(lens, place, after, changes, estimates),
            *(_obstacles(source, place, force) if dry_run else ()),
        ),
        bytes_before=source.size,
        bytes_after=result.total,
        state_bytes_before=sum(map(state_bytes, before.optimizers)),
        state_bytes_after=sum(map(state_bytes, after.optimizers)),
        script=(_script(lens, place, after, _target(before, ratios, settings)),),
        advice=tuple(advice(before, settings)),
        provenance=record,
        dry_run=dry_run,
    )


def _check(optimizer: Optimizer, checkpoint: Checkpoint, settings: Settings) -> None:
    """Stop at the first optimizer that is not AdamW's, before anything is read or written."""
    try:
        check_optimizer(optimizer, settings)
    except UnknownOptimizerError as error:
        others = [other.label for other in checkpoint.optimizers if recognised(other).is_adam]
        if not others:
            raise
        choice = " ".join(f"--optimizer {shlex.quote(label)}" for label in others)
        raise UnknownOptimizerError(f"{error}; to convert the others alone: {choice}") from None
    check_values(optimizer)


def _check_loose(schedulers: Sequence[Scheduler], *, chosen: bool) -> None:
    """A scheduler that may drive an optimizer which stays as it is cannot be scaled."""
    if schedulers and chosen:
        labels = ", ".join(scheduler.label for scheduler in schedulers)
        raise AmbiguousError(
            f"cannot tell whether the scheduler at {labels} drives an optimizer that is converted; "
            "leave --optimizer out, or save the checkpoint without that scheduler"
        )
    check_schedulers(schedulers)


def _estimates(
    source: Source, checkpoint: Checkpoint, settings: Settings, progress: Progress | None
) -> list[RatioEstimate]:
    advance = writing.counter(progress, sum(map(state_bytes, checkpoint.optimizers)))
    found: list[RatioEstimate] = []
    for optimizer in checkpoint.optimizers:
        weights = weights_by_slot(source, checkpoint, optimizer)
        try:
            found.append(
                estimate(
                    optimizer,
                    settings.betas,
                    advance,
                    to=settings.to,
                    decay=settings.decay,
                    weights=weights,
                )
            )
        except RefusedError as error:
            if len(checkpoint.optimizers) == 1:
                raise
            raise RefusedError(f"{optimizer.label}: {error}") from None
    return found


def _after(
    before: Checkpoint,
    changes: Sequence[Change],
    ratios: Sequence[float],
    settings: Settings,
) -> Checkpoint:
    """The checkpoint with all changes in it; schedulers of no known optimizer must be clear too."""
    loose = before.loose_schedulers
    if loose and (len(set(ratios)) != 1 or settings.to == "lion-sf"):
        labels = ", ".join(scheduler.label for scheduler in loose)
        raise AmbiguousError(
            f"cannot tell which optimizer the scheduler at {labels} drives, and each needs its own "
            "learning rates; convert with one --lr-ratio R --to lion for all"
        )
    return replace(
        before,
        optimizers=tuple(change.optimizer for change in changes),
        loose_schedulers=tuple(scale_scheduler(scheduler, ratios[0]) for scheduler in loose),
    )


def _notices(
    lens: Framework,
    place: Destination,
    after: Checkpoint,
    changes: Sequence[Change],
    estimates: Sequence[RatioEstimate | None],
) -> Iterator[Notice]:
    if place.kind is not Kind.SAME:
        yield Notice(
            "state-only", f"{place.path} holds the optimizer's state; weights are not in it"
        )
    warning = lens.output_warning(place.path) if place.kind is Kind.SAME else None
    if warning:
        yield Notice("output-name", warning)
    for item in estimates:
        yield from item.warnings if item else ()
    for change in changes:
        yield from (*change.warnings, *change.notes)
    for scheduler in after.loose_schedulers:
        yield Notice(
            "loose-scheduler",
            f"{scheduler.label}: cannot tell which optimizer it drives; scaled like all others",
        )
    for text in notes(after.loose_schedulers):
        yield Notice("scheduler", text)


def _check_target(source: Source, place: Destination, force: bool) -> None:
    is_folder = source.is_folder and place.kind is Kind.SAME
    check_target(place.path, force=force, is_folder=is_folder)
    if is_folder:
        outputs.check_own_folder(place.path)


def _obstacles(source: Source, place: Destination, force: bool) -> Iterator[Notice]:
    """What would keep the output of a dry run from being written."""
    try:
        _check_target(source, place, force)
    except PublishError as error:
        yield Notice("output-refused", str(error))


def _target(before: Checkpoint, ratios: Sequence[float], settings: Settings) -> Target:
    target = Target(settings.lion.imports[settings.to], constant_lr=settings.to == "lion-sf")
    if settings.decay != "decoupled" or not settings.lion.constructor:
        return target
    pairs = zip(before.optimizers, ratios, strict=True)
    highest = tuple(highest_lr(optimizer) / ratio for optimizer, ratio in pairs)
    return replace(target, argument=settings.lion.constructor, highest_lrs=highest)


def _script(lens: Framework, place: Destination, after: Checkpoint, target: Target) -> str:
    write = lens.resume_code if place.kind is Kind.SAME else state_file
    return write(after, target, place.path)


def _class_path(settings: Settings) -> str:
    """ "liontool.optim.Lion", from the line that imports it."""
    words = settings.lion.imports[settings.to].split()
    return f"{words[1]}.{words[3]}"

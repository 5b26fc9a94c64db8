"""The rule applied to all optimizers of a checkpoint, each with its own ratio; writes no file."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace

from liontool.checkpoint import writing
from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import scale_scheduler
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler
from liontool.checkpoint.source import Source
from liontool.checkpoint.writing import Progress
from liontool.convert.adamw_to_lion import adamw_to_lion, check_optimizer, recognised
from liontool.convert.adamw_to_lion_sf import adamw_to_lion_sf
from liontool.convert.change import Change
from liontool.convert.checking import check_schedulers, check_values
from liontool.convert.ratio import RatioEstimate, estimate
from liontool.convert.settings import Settings
from liontool.errors import AmbiguousError, RefusedError, UnknownOptimizerError
from liontool.measure.weights import weights_by_slot

_RULES = {"lion": adamw_to_lion, "lion-sf": adamw_to_lion_sf}


@dataclass(frozen=True)
class Converted:
    """A checkpoint before and after the rule; what is kept of each optimizer is in their order.

    Attributes:
        settings: How it was converted.
        before: The optimizers as they were.
        after: The same as Lions.
        changes: What the rule says of each.
        ratios: What the learning rates of each were divided by.
        estimates: The evidence for each ratio; None where the user gave it.
    """

    settings: Settings
    before: Checkpoint
    after: Checkpoint
    changes: tuple[Change, ...]
    ratios: tuple[float, ...]
    estimates: tuple[RatioEstimate | None, ...]

    @property
    def moments(self) -> tuple[TensorRef, ...]:
        """The momentum tensors of all optimizers, which must be finite."""
        return tuple(moment for change in self.changes for moment in change.moments)


def check_convertible(checkpoint: Checkpoint, settings: Settings, *, chosen: bool) -> None:
    """Stop at the first thing that the rule cannot work on, before much is read.

    Args:
        checkpoint: What was found.
        settings: What is asked for.
        chosen: Whether the user chose among the optimizers.

    Raises:
        UnknownOptimizerError: An optimizer is not AdamW's.
        LayoutError: A value is none that a run can have, or a scheduler may drive something else.
    """
    for optimizer in checkpoint.optimizers:
        _check(optimizer, checkpoint, settings)
    _check_loose(checkpoint.loose_schedulers, chosen=chosen)


def converted(
    source: Source,
    before: Checkpoint,
    settings: Settings,
    *,
    auto: bool,
    progress: Progress | None = None,
) -> Converted:
    """Apply the rule.

    Args:
        source: Where weights can be read that tell of Lion's box.
        before: The optimizers.
        settings: How; its ratio holds unless `auto`.
        auto: Estimate each optimizer's ratio from its moments.
        progress: Called with the bytes read so far and the bytes in all.
    """
    estimates: Sequence[RatioEstimate | None] = [None] * len(before.optimizers)
    if auto:
        estimates = _estimates(source, before, settings, progress)
    ratios = tuple(found.ratio if found else settings.ratio for found in estimates)
    changes = tuple(
        _RULES[settings.to](optimizer, replace(settings, ratio=ratio))
        for optimizer, ratio in zip(before.optimizers, ratios, strict=True)
    )
    changes = tuple(replace(c, optimizer=_reclassed(c.optimizer, settings)) for c in changes)
    after = _after(before, changes, ratios, settings)
    return Converted(settings, before, after, changes, ratios, tuple(estimates))


def _reclassed(optimizer: Optimizer, settings: Settings) -> Optimizer:
    """With the class that will load it, where the checkpoint tells of classes."""
    if not optimizer.class_name:
        return optimizer
    return replace(optimizer, class_name=settings.lion.classes[settings.to])


def _check(optimizer: Optimizer, checkpoint: Checkpoint, settings: Settings) -> None:
    """Stop at the first optimizer that is not AdamW's, before anything is read or written."""
    try:
        check_optimizer(optimizer, settings)
    except UnknownOptimizerError as error:
        others = [other.label for other in checkpoint.optimizers if recognised(other).is_adam]
        if not others:
            raise
        choice = " ".join(f"--optimizer {shlex.quote(label)}" for label in others)
        text = f"{error}; to convert the others alone: {choice}"
        raise UnknownOptimizerError(text, error.id) from None
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
    advance = writing.counter(progress, sum(one.state_bytes for one in checkpoint.optimizers))
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

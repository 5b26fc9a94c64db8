"""AdamW to LionSF: the state of the rule to Lion, and a learning rate that stays where it is.

LionSF needs no schedule. But a loader expects the scheduler it knows (without its file, Hugging
Face's Trainer would load no optimizer either), so no scheduler and no field of one goes: each is
rewritten so that the same class, loading it, gives one learning rate for ever:

    StepLR, MultiStepLR, ExponentialLR     gamma = 1
    ConstantLR, LinearLR                   factor, start_factor and end_factor = 1
    PolynomialLR                           power = 0
    CosineAnnealingLR, ...WarmRestarts     a period that never ends, eta_min = 0
    OneCycleLR                             initial_lr = max_lr = min_lr in the groups
    CyclicLR                               base_lrs = max_lrs
    ReduceLROnPlateau, GreedyLR            factor = 1
    SWALR                                  swa_lr = lr in the groups, anneal_epochs = 0
    SequentialLR, ChainedScheduler         each of their children

LambdaLR (all schedules of the Trainer but two) and MultiplicativeLR compute their factor in code
that is in no file. Their base rates are set, so that a factor of 1 gives the constant rate, and a
note says where to set it.

The rate held is the one the run had when it was saved, divided by the ratio: the switch is no jump.
A schedule that had reached zero would hold zero, which is warned about.

LionSF: https://github.com/govorunov/lion-sf (MIT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from liontool.checkpoint.document import TensorRef, Value, is_tuple
from liontool.checkpoint.learning_rates import (
    GROUP_KEYS,
    describe,
    kind_of,
    number,
    rate_keys,
    walk,
)
from liontool.checkpoint.model import Optimizer, ParamGroup, Scheduler
from liontool.convert.adamw_to_lion import adamw_to_lion
from liontool.convert.change import Change
from liontool.convert.report import Notice
from liontool.convert.settings import Settings

_HELD = ("base_lrs", "_last_lr", "max_lrs", "_init_lrs")


def adamw_to_lion_sf(optimizer: Optimizer, settings: Settings) -> Change:
    """Turn the state of AdamW or Adam into that of LionSF, at a constant learning rate.

    Raises:
        UnknownOptimizerError: As `adamw_to_lion`.
        RefusedError: As `adamw_to_lion`.
    """
    change = adamw_to_lion(optimizer, settings)
    groups = tuple(map(hold_group, change.optimizer.groups))
    rates = tuple(number(group.fields.get("lr")) or 0.0 for group in groups)
    schedulers = change.optimizer.schedulers
    held = tuple(hold_scheduler(scheduler, rates) for scheduler in schedulers)
    return replace(
        change,
        optimizer=replace(change.optimizer, groups=groups, schedulers=held),
        warnings=(*change.warnings, *_warnings(optimizer)),
        notes=(*(note for note in change.notes if note.id != "scheduler"), *_notes(schedulers)),
    )


def hold_group(group: ParamGroup) -> ParamGroup:
    """The group with every learning rate in it equal to the current one."""
    lr = group.fields.get("lr")
    changes = {
        key: _like(group.fields[key], lr)
        for key in GROUP_KEYS
        if key in group.fields and key != "lr"
    }
    return replace(group, fields=group.fields.replaced(changes)) if changes else group


def hold_scheduler(scheduler: Scheduler, rates: Sequence[float]) -> Scheduler:
    """The scheduler rewritten to give `rates`, one a group, for as long as it is stepped.

    Where code outside the file computes the factor, only its base rates are set: see `is_certain`.
    """
    kind = kind_of(scheduler)
    changes: dict[str, Any] = {
        name: _held(scheduler.fields[name], rates) for name in rate_keys(scheduler) if name in _HELD
    }
    constant = dict((kind.constant or ()) if kind else ())
    changes.update((key, value) for key, value in constant.items() if key in scheduler.fields)
    return replace(
        scheduler,
        fields=scheduler.fields.replaced(changes) if changes else scheduler.fields,
        children=tuple(hold_scheduler(child, rates) for child in scheduler.children),
    )


def is_certain(scheduler: Scheduler) -> bool:
    """Whether a scheduler, once held, can be relied on: no code outside the file has a say."""
    kind = kind_of(scheduler)
    custom = scheduler.fields.get("_scale_fn_custom") is not None
    return kind is not None and kind.constant is not None and not custom


def _held(value: Value, rates: Sequence[float]) -> Value:
    if not isinstance(value, Sequence) or len(value) != len(rates):
        return value
    items = [_like(item, rate) for item, rate in zip(value, rates, strict=True)]
    return tuple(items) if is_tuple(value) else items


def _like(item: Value, rate: Value) -> Value:
    """`rate` in the form that `item` has: a number, or a tensor of its own."""
    found = number(rate)
    if not isinstance(item, TensorRef) or found is None:
        return found
    from liontool.checkpoint import values

    return values.from_scalars(item.dtype, [found] * item.numel, item.shape)


def _warnings(before: Optimizer) -> list[Notice]:
    still = [i for i, group in enumerate(before.groups) if not number(group.fields.get("lr"))]
    if not still:
        return []
    return [
        Notice(
            "zero-lr",
            f"the learning rate of group {', '.join(map(str, still))} was 0 when the run was "
            "saved, and is held at 0: convert an earlier checkpoint, or set lr in the script",
        )
    ]


def _notes(schedulers: Sequence[Scheduler]) -> list[Notice]:
    notes: list[Notice] = []
    for scheduler in walk(schedulers):
        if is_certain(scheduler):
            continue
        note = Notice(
            "code-schedule",
            f"{describe(scheduler).name}: its factor is code and is in no file; to hold the "
            "learning rate let it return 1, or take the scheduler out of the script",
        )
        if note not in notes:
            notes.append(note)
    return notes

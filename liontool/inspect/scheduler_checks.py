"""Whether schedulers fit the groups that they drive."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import isclose

from liontool.checkpoint.document import Value, is_list
from liontool.checkpoint.learning_rates import describe, kind_of, number, walk
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler
from liontool.inspect.findings import Finding
from liontool.inspect.lr_curve import Curve, remaining
from liontool.inspect.schedules.course import CODE, FAILS, STAYS
from liontool.inspect.schedules.trainer import Factor

_RATE_LISTS = ("base_lrs", "_last_lr", "max_lrs", "min_lrs", "lr_lambdas", "_init_lrs")
_OWN_BASES = ("CyclicLR", "OneCycleLR")
"""Schedulers that write, or keep, a lowest rate which others beside them know nothing of."""
_OUTSIDE = ("timm scheduler", "Megatron's scheduler")
_NEAR = 1e-6

Rates = Sequence[float | None]


def scheduler_findings(
    optimizer: Optimizer, are_others: bool = False, factor: tuple[Factor, int] | None = None
) -> Iterator[Finding]:
    """What does not fit between one optimizer and its schedulers.

    Args:
        optimizer: As it was saved, with its schedulers.
        are_others: Whether the file has schedulers that may be its own.
        factor: What a framework's code makes of a step, and its last step: for a LambdaLR.
    """
    initial = [number(group.fields.get("initial_lr")) for group in optimizer.groups]
    rates = [number(group.fields.get("lr")) for group in optimizer.groups]
    if not optimizer.schedulers:
        if not are_others:
            yield from _scheduler_missing(optimizer, initial)
        return
    every = walk(optimizer.schedulers)
    for scheduler in every:
        yield from _counts(scheduler, len(optimizer.groups))
    yield from _initial_lr(optimizer, every, initial)
    yield from _base_lrs(every, initial)
    yield from _last_lr(optimizer.schedulers, rates)
    for scheduler in optimizer.schedulers:
        yield from _curve(scheduler, remaining(scheduler, optimizer.groups, factor), rates)


def loose_findings(checkpoint: Checkpoint) -> Iterator[Finding]:
    """Schedulers that belong to no one optimizer."""
    sizes = {len(optimizer.groups) for optimizer in checkpoint.optimizers}
    for scheduler in checkpoint.loose_schedulers:
        if len(sizes) == 1 and (found := list(_counts(scheduler, next(iter(sizes))))):
            yield from found
            continue
        text = "which optimizer it drives cannot be told: its rates fit none, or several"
        yield Finding("scheduler-unpaired", name_of(scheduler), text)


def name_of(scheduler: Scheduler) -> str:
    """The class and the place in the file."""
    name = describe(scheduler).name
    return f"{scheduler.label} ({name})" if scheduler.label else name


def _scheduler_missing(optimizer: Optimizer, initial: Rates) -> Iterator[Finding]:
    if any(rate is not None for rate in initial):
        text = (
            "the groups have initial_lr, so a scheduler drove them, but no scheduler's state is "
            "there: a new one begins at its step 0, unless it is made with last_epoch"
        )
        yield Finding("scheduler-missing", optimizer.label, text)


def _counts(scheduler: Scheduler, groups: int) -> Iterator[Finding]:
    for name in _RATE_LISTS:
        values = scheduler.fields.get(name)
        if is_list(values) and len(values) != groups:
            text = f"{name} has {len(values)} entries for {groups} groups: its step fails"
            yield Finding("rate-count", name_of(scheduler), text)


def _initial_lr(
    optimizer: Optimizer, every: Sequence[Scheduler], initial: Rates
) -> Iterator[Finding]:
    missing = [str(i) for i, rate in enumerate(initial) if rate is None]
    needed = next((one for one in every if "base_lrs" in one.fields), None)
    if missing and needed is not None:
        text = (
            f"group {', '.join(missing[:8])}: has no initial_lr, though {describe(needed).name} "
            "drives it; a scheduler made with last_epoch fails, others take the lr of now for it"
        )
        yield Finding("missing-initial-lr", optimizer.label, text)


def _base_lrs(every: Sequence[Scheduler], initial: Rates) -> Iterator[Finding]:
    kinds = [describe(one).name for one in every]
    if len(every) > 1 and any(kind in _OWN_BASES for kind in kinds):
        return
    for one, kind in zip(every, kinds, strict=True):
        text = "" if kind == "CyclicLR" else _differing(one.fields.get("base_lrs"), initial)
        if text:
            text = f"base_lrs and the groups' initial_lr differ, {text}; it goes by base_lrs"
            yield Finding("base-lr-differs", name_of(one), text)


def _last_lr(schedulers: Sequence[Scheduler], rates: Rates) -> Iterator[Finding]:
    """Of several schedulers only the one that was stepped last has set the rates of now."""
    texts = [_differing(one.fields.get("_last_lr"), rates) for one in schedulers]
    if all(texts):
        text = f"_last_lr and the groups' lr differ, {texts[0]}; the next step takes the groups'"
        yield Finding("last-lr-differs", name_of(schedulers[0]), text)


def _differing(noted: Value, found: Rates) -> str:
    """The first group in which they differ, in words; "" where there is none."""
    if not is_list(noted):
        return ""
    for i, (left, right) in enumerate(zip(map(number, noted), found, strict=False)):
        if left is not None and right is not None and not isclose(left, right, rel_tol=_NEAR):
            return f"in group {i}: {left:.6g} and {right:.6g}"
    return ""


def _curve(scheduler: Scheduler, curve: Curve, rates: Rates) -> Iterator[Finding]:
    where, kind = name_of(scheduler), kind_of(scheduler)
    if kind is None or kind.name in _OUTSIDE:
        text = "the learning rate is not in its state: the script or a configuration sets it"
        yield Finding("lr-outside", where, text)
        return
    if curve.reason is not None:
        yield Finding("scheduler-field", where, f"what it will do cannot be told: {curve.reason}")
    elif curve.then == CODE:
        text = (
            "its factor is code, not in the file: the rates will be base_lrs "
            f"({_some(scheduler.fields.get('base_lrs'))}) times what the script makes of the step"
        )
        yield Finding("lr-outside", where, text)
    elif over := _over(curve, rates):
        yield Finding("schedule-over", where, over)


def _over(curve: Curve, rates: Rates) -> str:
    if curve.span == 0 and curve.then == FAILS:
        if any(one.next_rate is not None for one in curve.curves):
            return "it can be stepped once more, then torch raises an error"
        return "it is at its last step: torch raises an error if it is stepped"
    if curve.span == 0 and curve.then == STAYS and curve.position and not any(rates):
        return "it has come to its end, and the learning rate stays 0: nothing will be learned"
    return ""


def _some(values: Value) -> str:
    numbers = [f"{found:.6g}" for value in values or () if (found := number(value)) is not None]
    different = list(dict.fromkeys(numbers))
    return ", ".join(different[:4]) + (", ..." if len(different) > 4 else "")

"""What a resume will do with the learning rate and the state, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.checkpoint.learning_rates import cycled_betas, describe, number
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.inspect.lr_curve import Curve
from liontool.inspect.schedules.course import FAILS, ON, STAYS

_BY_GROUP = "it multiplies the lr that is in the group, so that a change there lasts"
_BY_BASE = "it computes it from base_lrs: a change of the group's lr alone lasts one step"

_CODE = "LambdaLR or MultiplicativeLR"

# By what each class computes the next learning rate.
_SOURCES = {
    "StepLR": _BY_GROUP,
    "MultiStepLR": _BY_GROUP,
    "ConstantLR": _BY_GROUP,
    "LinearLR": _BY_GROUP,
    "PolynomialLR": _BY_GROUP,
    "ExponentialLR": _BY_GROUP,
    "CosineAnnealingLR": "it goes on from the group's lr until step T_max, then by base_lrs",
    "CosineAnnealingWarmRestarts": _BY_BASE,
    "CyclicLR": _BY_BASE.replace("base_lrs", "its base_lrs and max_lrs"),
    "OneCycleLR": "it computes it from the group's initial_lr, max_lr and min_lr: "
    "a change of lr alone lasts one step",
    "SWALR": "it goes on from the group's lr to its swa_lr",
    _CODE: "LambdaLR computes it from base_lrs, whatever lr the group has",
}


def outlook(optimizer: Optimizer, framework: str, curves: Sequence[Curve]) -> tuple[str, ...]:
    """What a user should know before training goes on; what is wrong is in the findings.

    Args:
        optimizer: As it was saved.
        framework: Whose loader will read it.
        curves: What remains of the curve of each of its schedulers.
    """
    return (
        *_hyperparameters(optimizer, framework),
        *_schedulers(optimizer, framework, curves),
        *_cycled(optimizer),
        *_order(optimizer, framework),
    )


def _hyperparameters(optimizer: Optimizer, framework: str) -> Iterator[str]:
    names = [n for n in ("lr", "betas", "weight_decay") if n in optimizer.groups[0].fields]
    if not names:
        return
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    rates = [number(group.fields.get("lr")) for group in optimizer.groups]
    text = f"{listed} of the file win over those in the code"
    if framework == "hf-trainer":
        text += ", and over TrainingArguments"
    yield f"{text}: the next step is made with lr {_range(rates)}"


def _schedulers(optimizer: Optimizer, framework: str, curves: Sequence[Curve]) -> Iterator[str]:
    if not optimizer.schedulers:
        yield "no scheduler's state in the file is its own: lr stays unless the script changes it"
    for scheduler, curve in zip(optimizer.schedulers, curves, strict=True):
        active = _active(scheduler)
        source = _SOURCES.get(describe(active).name)
        after = _next(curve)
        name = describe(scheduler).name
        if after and source:
            inside = f", by {describe(active).name}" if active is not scheduler else ""
            yield f"then {name} sets {after}{inside}; {source}"
        elif source:
            yield f"then {source}"
        if framework == "hf-trainer" and describe(scheduler).name == _CODE and curve.curves:
            yield "the curve is TrainingArguments', of the same folder, which give the lr of now"
        if ending := _ending(scheduler, curve):
            yield ending


def _active(scheduler: Scheduler) -> Scheduler:
    """The part of a SequentialLR whose turn it is."""
    while scheduler.children:
        marks = scheduler.fields.get("_milestones")
        if not isinstance(marks, Sequence):
            return scheduler
        position = number(scheduler.fields.get("last_epoch")) or 0
        passed = sum((number(mark) or 0) <= position for mark in marks)
        scheduler = scheduler.children[min(passed, len(scheduler.children) - 1)]
    return scheduler


def _next(curve: Curve) -> str:
    """The learning rates one step on."""
    rates = [one.next_rate for one in curve.curves]
    return f"lr {_range(rates)}" if rates and None not in rates else ""


def _ending(scheduler: Scheduler, curve: Curve) -> str:
    """Where the rates go, by their highest group."""
    if not curve.curves or curve.position is None:
        return ""
    if curve.span == 0:
        text = f"{describe(scheduler).name} is at its end: lr stays"
        return f"{text} {_range(_ends(curve))}" if curve.then == STAYS else ""
    came, falls = _arrival(curve)
    beyond = {
        STAYS: " and stays there",
        FAILS: f"; beyond step {curve.position + curve.span + 1:,} torch raises an error",
        ON: _beyond(describe(_final(scheduler)).name, falls),
    }
    verb = {True: "falls to", False: "rises to", None: "is"}[falls]
    peak, step = _peak(curve), f"{curve.position + came:,}"
    begin = f"{peak}, by {step} it" if peak else f"by its step {step} lr"
    return f"{begin} {verb} {_range(_ends(curve))}{beyond.get(curve.then, '')}"


def _ends(curve: Curve) -> list[float | None]:
    return [one.rates[-1] for one in curve.curves]


def _arrival(curve: Curve) -> tuple[int, bool | None]:
    """The step at which the last rate is reached, and whether the rates fall to it or rise."""
    one = curve.curves[0]
    last = one.rates[-1] or 0.0
    points = list(zip(one.steps, one.rates, strict=True))
    came = one.steps[-1]
    for step, rate in reversed(points):
        if rate != one.rates[-1]:
            return came, last < (rate or 0.0)
        came = step
    return one.steps[-1], None


def _beyond(name: str, falls: bool | None) -> str:
    if name == "CosineAnnealingLR":
        return f" and {'rises' if falls else 'falls'} again after that"
    again = name in ("CosineAnnealingWarmRestarts", "CyclicLR")
    return " and starts again" if again else " and goes on"


def _peak(curve: Curve) -> str:
    """The highest rate where it lies between now and the end."""
    one = max(curve.curves, key=lambda one: max(rate or 0.0 for rate in one.rates))
    rates = [rate or 0.0 for rate in one.rates]
    top = max(rates)
    if top <= max(rates[0], rates[-1]):
        return ""
    step = (curve.position or 0) + one.steps[rates.index(top)]
    return f"by its step {step:,} lr rises to {top:.6g}"


def _final(scheduler: Scheduler) -> Scheduler:
    """The last part of a SequentialLR."""
    while scheduler.children and "_milestones" in scheduler.fields:
        scheduler = scheduler.children[-1]
    return scheduler


def _cycled(optimizer: Optimizer) -> Iterator[str]:
    cycles = {cycled_betas(group, optimizer.schedulers) for group in optimizer.groups}
    for cycle in cycles - {None}:
        low, high = cycle or (0, 0)
        yield f"the scheduler sets beta1 as well, at every step, between {low:g} and {high:g}"


def _order(optimizer: Optimizer, framework: str) -> Iterator[str]:
    if framework == "hf-trainer":
        return
    if optimizer.slots and all(slot.name is None for slot in optimizer.slots.values()):
        yield (
            "state finds its parameter by position, as the file has no names: build the groups in "
            "the order of before"
        )
    if optimizer.schedulers and framework == "plain":
        yield (
            "make the scheduler first, then load the optimizer, then the scheduler: making one "
            "sets lr as for step 0"
        )


def _range(rates: Sequence[float | None]) -> str:
    known = [rate for rate in rates if rate is not None]
    if not known:
        return "unknown"
    low, high = min(known), max(known)
    return f"{low:.6g}" if f"{low:.6g}" == f"{high:.6g}" else f"{low:.6g} to {high:.6g}"

"""What the schedulers will do with the learning rate after a resume, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf

from liontool.checkpoint.document import is_list
from liontool.checkpoint.learning_rates import describe, number
from liontool.checkpoint.model import ParamGroup, Scheduler
from liontool.inspect.curve_words import by_group, ending
from liontool.inspect.lr_curve import Curve, remaining
from liontool.inspect.schedules.course import FAILS, STAYS, WAITS

_LAMBDA = "LambdaLR or MultiplicativeLR"
_BY_CODE = (
    "then code sets lr: LambdaLR goes by base_lrs, so that a change of lr alone lasts one step, "
    "MultiplicativeLR by the group's lr, so that it lasts; the file does not tell which"
)
_TRAINER = "the curve is TrainingArguments', of the same folder, which give the lr of now"

_OWN = {
    "CyclicLR": "its base_lrs and max_lrs",
    "OneCycleLR": "the group's initial_lr, max_lr and min_lr",
    "CosineAnnealingWarmRestarts": "base_lrs",
    _LAMBDA: "base_lrs",
}
"""What the classes go by that compute each rate anew."""
_MOST_PARTS = 3


def sentences(
    scheduler: Scheduler, curve: Curve, groups: Sequence[ParamGroup], by_trainer: bool
) -> Iterator[str]:
    """What one scheduler will do; nothing where that cannot be told, which is a finding.

    Args:
        scheduler: As it was saved.
        curve: What remains of it.
        groups: That it drives.
        by_trainer: Whether Hugging Face's Trainer made it.
    """
    if curve.reason is not None or curve.position is None:
        return
    name = describe(scheduler).name
    is_code = name == _LAMBDA
    if not curve.curves:
        yield _BY_CODE if is_code else _waiting(scheduler, curve)
        return
    if by_trainer and is_code:
        name = "LambdaLR"
    if curve.span == 0 and curve.then == STAYS:
        stays = by_group([one.rates[-1] for one in curve.curves])
        yield f"{name} is at its end: lr stays {stays}; {_change(curve)}"
        return
    yield _next(name, scheduler, curve, groups)
    if is_code:
        yield _TRAINER
    if curve.span or curve.curves[0].next_rate is not None:
        yield ending(curve, describe(_final(scheduler)).name)


def _waiting(scheduler: Scheduler, curve: Curve) -> str:
    name, fields = describe(scheduler).name, scheduler.fields
    factor, patience = number(fields.get("factor")), number(fields.get("patience"))
    if curve.then != WAITS or name != "ReduceLROnPlateau" or factor is None or patience is None:
        return f"then {name} moves the group's lr as its metric goes"
    return (
        f"{name} keeps lr until its metric has not improved for more than {patience:g} steps, then "
        f"multiplies it by {factor:g}: {_change(curve)}"
    )


def _next(name: str, scheduler: Scheduler, curve: Curve, groups: Sequence[ParamGroup]) -> str:
    """The rates one step on, who sets them, and what a change of lr is worth."""
    part, starts = _next_part(scheduler)
    kind = describe(part).name
    rates = [one.next_rate for one in curve.curves]
    if None in rates:
        if curve.span == 0 and curve.then == FAILS:
            return f"{name} is at its last step: torch raises an error if it is stepped"
        return f"then {name} sets lr by code that is not in the file, that of {kind}"
    text = f"then {name} sets lr {by_group(rates)}"
    inner = f" by {kind}" if part is not scheduler else ""
    if part.children:
        text += f", by {_parts(part)} in turn"
    else:
        text += f",{inner} from {_source(kind, starts, curve)}"
    if curve.lasts is None:
        return text
    return f"{text}: {_change(curve)}{_winner(scheduler, curve, groups)}"


def _next_part(scheduler: Scheduler) -> tuple[Scheduler, bool]:
    """The part of a SequentialLR that makes its next step, and whether it starts with it."""
    starts = False
    while scheduler.children and not starts:
        marks = scheduler.fields.get("_milestones")
        if not is_list(marks):
            break
        step = (number(scheduler.fields.get("last_epoch")) or 0) + 1
        begins = [number(mark) or 0 for mark in marks]
        starts = step in begins
        passed = sum(begin <= step for begin in begins)
        scheduler = scheduler.children[min(passed, len(scheduler.children) - 1)]
    return scheduler, starts


def _source(kind: str, starts: bool, curve: Curve) -> str:
    """What a class computes its next rate from."""
    anew = curve.lasts == 1
    if kind == "SWALR":
        return "the group's swa_lr" if anew and not starts else "the group's lr and swa_lr"
    if kind == "CosineAnnealingLR" and anew and not starts:
        return "its eta_min"
    return _OWN.get(kind, "base_lrs" if starts else "the group's lr")


def _change(curve: Curve) -> str:
    """For how long a change of the groups' lr shows."""
    if curve.lasts is None or curve.lasts == inf:
        return "a change of lr alone lasts"
    if curve.lasts == 1:
        return "a change of lr alone lasts one step"
    return f"a change of lr alone lasts until step {(curve.position or 0) + int(curve.lasts):,}"


def _parts(chained: Scheduler) -> str:
    kinds = [describe(child).name for child in chained.children]
    more = len(kinds) - _MOST_PARTS
    shown = kinds if more <= 0 else [*kinds[:_MOST_PARTS], f"{more} more"]
    return " and ".join(filter(None, (", ".join(shown[:-1]), shown[-1])))


def _winner(scheduler: Scheduler, curve: Curve, groups: Sequence[ParamGroup]) -> str:
    """The part of a ChainedScheduler that sets lr whatever the others made of it."""
    if describe(scheduler).name != "ChainedScheduler" or curve.lasts == inf:
        return ""
    for child in scheduler.children:
        if remaining(child, groups).lasts == curve.lasts:
            return f", as {describe(child).name} wins"
    return ""


def _final(scheduler: Scheduler) -> Scheduler:
    """The last part of a SequentialLR."""
    while scheduler.children and "_milestones" in scheduler.fields:
        scheduler = scheduler.children[-1]
    return scheduler

"""What remains of the learning rate's curve, from what a scheduler has saved: some of its points.

Only a few points are evaluated, however long the curve is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, isnan

from liontool.checkpoint.document import is_list
from liontool.checkpoint.learning_rates import GROUP_KEYS, number, walk
from liontool.checkpoint.model import ParamGroup, Scheduler
from liontool.inspect.schedules.course import CODE, WAITS, Course, NotTold, Setting
from liontool.inspect.schedules.rules import course, epoch_of
from liontool.inspect.schedules.trainer import Factor

_POINTS = 60
_FEWEST_POINTS = 12
_MOST_POINTS = 480
_MOST_CORNERS = 24
_MOST_CURVES = 64
_LONGEST = 10**9


@dataclass(frozen=True)
class GroupCurve:
    """Points of the curve that some groups share.

    Attributes:
        groups: Indices of the groups.
        steps: Steps of the scheduler from now on, the first is 0; later ones in order.
        rates: The learning rate after each of them; None where the file does not tell.
        next_rate: The learning rate one step on, beyond the end of the curve as well; None where
            the file does not tell it, or torch raises an error.
    """

    groups: tuple[int, ...]
    steps: tuple[int, ...]
    rates: tuple[float | None, ...]
    next_rate: float | None = None


@dataclass(frozen=True)
class Curve:
    """What remains.

    Attributes:
        position: How often the scheduler was stepped, where known.
        span: Over how many further steps it is drawn; 0 where nothing changes any more.
        then: What comes after them: "stays", "goes on", "fails" (torch raises an error), "waits
            for a metric", "is code"; "" where `reason` is set.
        curves: One for all groups that have the same; the first 64 where there are more.
        reason: Why there is none, else None.
        lasts: For how many steps a change of the groups' lr alone shows; infinite where it lasts,
            None where the file does not tell.
    """

    position: int | None
    span: int
    then: str
    curves: tuple[GroupCurve, ...]
    reason: str | None = None
    lasts: float | None = None


def remaining(
    scheduler: Scheduler, groups: Sequence[ParamGroup], factor: tuple[Factor, int] | None = None
) -> Curve:
    """The rest of the curve of each group that `scheduler` drives.

    Args:
        scheduler: As it was saved.
        groups: The optimizer's groups, as they were saved with it.
        factor: What a framework's code makes of a step, and its last step: for a LambdaLR.
    """
    position = None
    try:
        position = epoch_of(scheduler)
        alike = _alike(scheduler, groups)[:_MOST_CURVES]
        settings = [
            Setting(scheduler, groups[same[0]].fields, same[0], position, factor) for same in alike
        ]
        courses = [course(setting) for setting in settings]
        then, span = courses[0].then, min(_LONGEST, max(one.span for one in courses))
        if then in (CODE, WAITS) and not span:
            return Curve(position, 0, then, (), lasts=_lasts(courses[0]))
        number_of_points = max(_FEWEST_POINTS, min(_POINTS, _MOST_POINTS // len(alike)))
        steps = _steps(span, number_of_points, courses[0].corners)
        curves = (
            _points(groups, same, one, position, steps)
            for same, one in zip(alike, courses, strict=True)
        )
        return Curve(position, span, then, tuple(curves), lasts=_lasts(courses[0]))
    except (NotTold, ArithmeticError, ValueError) as error:
        return Curve(position, 0, "", (), str(error))


def _alike(scheduler: Scheduler, groups: Sequence[ParamGroup]) -> list[tuple[int, ...]]:
    """Indices of groups that have all their learning rates in common, there and here."""
    if not groups:
        raise NotTold("there are no groups")
    fields = (one.fields.get(n) for one in walk([scheduler]) for n in ("base_lrs", "max_lrs"))
    lists = [values for values in fields if is_list(values)]
    found: dict[tuple[float | None, ...], list[int]] = {}
    for index, group in enumerate(groups):
        own = [number(group.fields.get(name)) for name in GROUP_KEYS]
        noted = [number(values[index]) for values in lists if index < len(values)]
        found.setdefault((*own, *noted), []).append(index)
    return [tuple(same) for same in found.values()]


def _steps(span: int, points: int, corners: Iterable[int]) -> tuple[int, ...]:
    """Evenly spaced steps from 0 to the span, the next one, and the first corners of the curve."""
    even = {min(1, span), *(span * i // points for i in range(points + 1))}
    within = sorted({corner for corner in corners if 0 < corner < span})
    return tuple(sorted(even.union(within[:_MOST_CORNERS])))


def _points(
    groups: Sequence[ParamGroup],
    same: tuple[int, ...],
    one: Course,
    position: int,
    steps: tuple[int, ...],
) -> GroupCurve:
    lr = number(groups[same[0]].fields.get("lr"))
    if lr is None:
        raise NotTold(f"group {same[0]} has no lr")
    rates = (lr, *(_rate(one, lr, position, step) for step in steps[1:]))
    return GroupCurve(same, steps, rates, _rate(one, lr, position, 1))


def _lasts(one: Course) -> float | None:
    return None if isnan(one.forgets) else one.forgets


def _rate(one: Course, lr: float, position: int, step: int) -> float | None:
    try:
        found = one.after(lr, position, step)
    except (ArithmeticError, ValueError):
        return None
    return found if isfinite(found) else None

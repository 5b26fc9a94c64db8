"""The rule of each scheduler class, and the schedulers that are made of others."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import kind_of, number
from liontool.checkpoint.model import Scheduler
from liontool.inspect.schedules import products, waves
from liontool.inspect.schedules.course import (
    CODE,
    STAYS,
    UNKNOWN,
    WAITS,
    Course,
    NotTold,
    Setting,
    told,
)

_MOST_CHILDREN = 64
_LONGEST_WALK = 4096


def course(setting: Setting) -> Course:
    """Where the learning rate of a group goes under a scheduler.

    Raises:
        NotTold: Something is missing in the file.
    """
    kind = kind_of(setting.scheduler)
    if kind is None or kind.name not in _RULES:
        raise NotTold("its class is not known" if kind is None else f"{kind.name} is not evaluated")
    return _RULES[kind.name](setting)


def _plateau(s: Setting) -> Course:
    return Course(lambda lr, epoch, n: lr, lambda lr: UNKNOWN, 0, WAITS)


def _code(s: Setting) -> Course:
    lr = number(s.group.get("lr"))
    if s.factor is not None and lr is not None:
        factor, end = s.factor
        base = s.base
        # What is known of the code is believed where it gives the rate that is in the file.
        if math.isclose(base * factor(s.epoch), lr, rel_tol=1e-6):
            left = max(0, end - s.epoch)
            return Course(
                lambda lr, epoch, n: base * factor(epoch + n), lambda lr: UNKNOWN, left, forgets=1
            )
    return Course(
        lambda lr, epoch, n: UNKNOWN if n else lr, lambda lr: UNKNOWN, 0, CODE, forgets=math.nan
    )


def _sequential(s: Setting) -> Course:
    marks = [int(told(mark, "_milestones")) for mark in _items(s, "_milestones")]
    children = s.scheduler.children
    if len(marks) != len(children) - 1 or len(children) > _MOST_CHILDREN:
        raise NotTold(f"it has {len(marks)} milestones for {len(children)} schedulers")
    active = bisect_right(marks, s.epoch)
    begun = course(_inside(s, children[active]))
    later = [_started(s, child) for child in children[active + 1 :]]
    offset = epoch_of(children[active]) - s.epoch

    def after(lr: float, epoch: int, n: int) -> float:
        here, to, now, shift = epoch, epoch + n, begun, offset
        for mark, following in zip(marks[active:], later, strict=True):
            if to < mark:
                break
            if here < mark:
                lr = now.after(lr, here + shift, mark - 1 - here)
            lr, here, now, shift = following.start(lr), mark, following, -mark
        return now.after(lr, here + shift, to - here)

    return _joined(after, [mark - s.epoch for mark in marks[active:]], [begun, *later])


def _started(s: Setting, child: Scheduler) -> Course:
    """The course of a scheduler from the milestone on that starts it."""
    if child.children:
        raise NotTold("torch itself fails when it comes to the schedulers within its schedulers")
    return course(_inside(s, child, 0))


def _joined(
    after: Callable[[float, int, int], float], starts: Sequence[int], parts: Sequence[Course]
) -> Course:
    """The course of a sequence: what is left of the first part, and the others from `starts`."""
    corners = [*parts[0].corners, *(step for mark in starts for step in (mark - 1, mark))]
    for start, part in zip(starts, parts[1:], strict=True):
        corners += [start + corner for corner in part.corners]
    span = (starts[-1] if starts else 0) + parts[-1].span
    return Course(
        after,
        lambda lr: UNKNOWN,
        span,
        parts[-1].then,
        tuple(corners),
        forgets=_forgotten(starts, parts),
    )


def _forgotten(starts: Sequence[int], parts: Sequence[Course]) -> float:
    """When the rate of now counts for nothing: in the first part, or by the start of the next."""
    begun = 0
    for end, part, following in zip(starts, parts, parts[1:], strict=False):
        if begun + part.forgets < end:  # at its end the next one starts, and it is not stepped
            return begun + part.forgets
        if math.isnan(part.forgets) and end - begun > 1:
            return math.nan
        if not following.keeps:
            return end
        begun = end
    return begun + parts[len(starts)].forgets


def _chained(s: Setting) -> Course:
    children = s.scheduler.children
    if len(children) > _MOST_CHILDREN:
        raise NotTold(f"it has {len(children)} schedulers")
    parts = [(course(_inside(s, child)), epoch_of(child) - s.epoch) for child in children]
    courses = [part for part, _ in parts]
    together, alone = _walk_together(courses)
    if together > _LONGEST_WALK:
        raise NotTold(f"its schedulers move the rate together for {together:,} steps")
    walked: dict[tuple[float, int], list[float]] = {}

    def after(lr: float, epoch: int, n: int) -> float:
        done = min(n, together)
        rates = walked.setdefault((lr, epoch), [lr])
        while len(rates) <= done:
            rates.append(_moved(parts, rates[-1], epoch + len(rates) - 1, 1))
        if n == done:
            return rates[done]
        return _moved(parts, rates[done], epoch + done, n - done) if alone else UNKNOWN

    return Course(
        after,
        lambda lr: UNKNOWN,
        max(part.span for part in courses),
        next((part.then for part in courses if part.then != STAYS), STAYS),
        tuple(corner for part in courses for corner in part.corners),
        product=all(part.product for part in courses),
        forgets=min((part.forgets for part in courses), key=_unknown_first),
    )


def _unknown_first(forgets: float) -> float:
    return -1 if math.isnan(forgets) else forgets


def _walk_together(parts: Sequence[Course]) -> tuple[int, bool]:
    """For how many steps schedulers must be stepped in turn, and whether one can jump after that.

    Products can be taken in any order.
    """
    products_of = [part for part in parts if part.product]
    others = len(parts) - len(products_of)
    if not others or len(parts) == 1:
        return 0, True
    if others == 1 and all(part.then == STAYS for part in products_of):
        return max(part.span for part in products_of), True
    return max(part.span for part in parts), False


def _moved(parts: Sequence[tuple[Course, int]], lr: float, epoch: int, n: int) -> float:
    """The rate after `n` steps of one scheduler after the other."""
    for part, shift in parts:
        lr = part.after(lr, epoch + shift, n)
    return lr


def _inside(s: Setting, child: Scheduler, epoch: int | None = None) -> Setting:
    return replace(s, scheduler=child, epoch=epoch_of(child) if epoch is None else epoch)


def epoch_of(scheduler: Scheduler) -> int:
    """How often it was stepped; a ChainedScheduler does not count."""
    if "last_epoch" not in scheduler.fields and scheduler.children:
        return epoch_of(scheduler.children[0])
    epoch = int(told(scheduler.fields.get("last_epoch"), "last_epoch"))
    if epoch < 0:
        raise NotTold("it has not begun")
    return epoch


def _items(s: Setting, name: str) -> Sequence[Value]:
    found = s.scheduler.fields.get(name)
    if not isinstance(found, Sequence) or isinstance(found, (str, bytes)):
        raise NotTold(f"it has no {name}")
    return found


_RULES: Mapping[str, Callable[[Setting], Course]] = {
    "LambdaLR or MultiplicativeLR": _code,
    "StepLR": products.step,
    "MultiStepLR": products.multi_step,
    "ConstantLR": products.constant,
    "LinearLR": products.linear,
    "PolynomialLR": products.polynomial,
    "ExponentialLR": products.exponential,
    "CosineAnnealingLR": waves.cosine,
    "CosineAnnealingWarmRestarts": waves.warm_restarts,
    "OneCycleLR": waves.one_cycle,
    "CyclicLR": waves.cyclic,
    "ReduceLROnPlateau": _plateau,
    "GreedyLR": _plateau,
    "SWALR": waves.swa,
    "SequentialLR": _sequential,
    "ChainedScheduler": _chained,
}
"""The rule of each class that `learning_rates.KINDS` can tell."""

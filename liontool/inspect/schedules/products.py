"""Schedulers that multiply the rate that is there, whatever it is, by a factor of the step.

Torch multiplies at every step. The products telescope, so that a jump over a million steps costs as
much as one. The formulas are those of `torch/optim/lr_scheduler.py` (BSD licence), rewritten.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import number
from liontool.inspect.schedules.course import ON, STAYS, Course, NotTold, Setting


def step(s: Setting) -> Course:
    size, gamma, base = s.count("step_size"), s.number("gamma"), s.base
    if not size:
        raise NotTold("step_size is 0")

    def after(lr: float, epoch: int, n: int) -> float:
        return lr * math.pow(gamma, (epoch + n) // size - epoch // size)

    first = size - s.epoch % size
    corners = tuple(range(first, 4 * size + 1, size))
    return Course(after, lambda lr: base, 4 * size, ON, _edges(corners), product=True)


def multi_step(s: Setting) -> Course:
    steps, times = _milestones(s.scheduler.fields.get("milestones"))
    gamma, base = s.number("gamma"), s.base

    def passed(epoch: int) -> int:
        return times[bisect_right(steps, epoch)]

    def after(lr: float, epoch: int, n: int) -> float:
        return lr * math.pow(gamma, passed(epoch + n) - passed(epoch))

    corners = tuple(step - s.epoch for step in steps if step > s.epoch)
    span = corners[-1] + max(1, corners[-1] // 4) if corners else 0
    return Course(
        after,
        lambda lr: base * math.pow(gamma, passed(0)),
        span,
        STAYS,
        _edges(corners),
        product=True,
    )


def _milestones(value: Value) -> tuple[list[int], list[int]]:
    """Where the rate drops, in order, and how many drops there are before each of them."""
    if isinstance(value, Mapping):
        pairs = [(number(step), number(times)) for step, times in value.items()]
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        pairs = [(number(step), 1.0) for step in value]
    else:
        raise NotTold("it has no milestones")
    try:
        known = sorted((int(step), int(times)) for step, times in pairs)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError) as error:
        raise NotTold("its milestones are no counts") from error
    return [step for step, _ in known], [0, *accumulate(times for _, times in known)]


def _edges(corners: Sequence[int]) -> tuple[int, ...]:
    """The last step before each drop, and the drop."""
    return tuple(step for corner in corners for step in (corner - 1, corner))


def constant(s: Setting) -> Course:
    end, factor, base = s.count("total_iters"), s.number("factor"), s.base

    def after(lr: float, epoch: int, n: int) -> float:
        return lr * (1 / factor) if epoch < end <= epoch + n else lr

    left = max(0, end - s.epoch)
    return Course(
        after,
        lambda lr: base if end <= 0 else base * factor,
        left + max(1, left // 4) if left else 0,
        STAYS,
        _edges([left] if left else []),
        product=True,
    )


def linear(s: Setting) -> Course:
    first, last, base = s.number("start_factor"), s.number("end_factor"), s.base
    end = s.count("total_iters")

    def after(lr: float, epoch: int, n: int) -> float:
        to = min(epoch + n, end)
        if to <= epoch:
            return lr
        return lr * (end * first + to * (last - first)) / (end * first + epoch * (last - first))

    return Course(after, lambda lr: base * first, max(0, end - s.epoch), product=True)


def polynomial(s: Setting) -> Course:
    end, power, base = s.count("total_iters"), s.number("power"), s.base

    def after(lr: float, epoch: int, n: int) -> float:
        to = min(epoch + n, end)
        return lr if to <= epoch else lr * math.pow((1 - to / end) / (1 - epoch / end), power)

    return Course(after, lambda lr: base, max(0, end - s.epoch), product=True)


def exponential(s: Setting) -> Course:
    gamma, base = s.number("gamma"), s.base
    to_a_tenth = math.ceil(abs(math.log(10) / math.log(gamma))) if 0 < gamma != 1 else 0
    return Course(
        lambda lr, epoch, n: lr * math.pow(gamma, n),
        lambda lr: base,
        min(to_a_tenth, 10**9),
        ON if to_a_tenth else STAYS,
        product=True,
    )

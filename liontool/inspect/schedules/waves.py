"""Schedulers that know the rate of each step: cosines, cycles and what anneals to a fixed rate.

The formulas are those of `torch/optim/lr_scheduler.py` and `swa_utils.py` (BSD licence), rewritten.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence

from liontool.checkpoint.document import Value
from liontool.inspect.schedules.course import FAILS, ON, UNKNOWN, Course, NotTold, Setting, told


def cosine(s: Setting) -> Course:
    half, low, base = s.number("T_max"), s.number("eta_min"), s.base
    if half <= 0:
        raise NotTold(f"T_max is {half:g}")

    def height(epoch: float) -> float:
        return 1 + math.cos(math.pi * epoch / half)

    def after(lr: float, epoch: int, n: int) -> float:
        to = epoch + n
        turn = _last_turn(half, to)
        if turn is None or turn < epoch:
            return height(to) / height(epoch) * (lr - low) + low if n else lr
        # There the rate is at its lowest, and torch goes on from it by addition.
        bottom = lr if turn == epoch else low
        risen = bottom + (base - low) * (1 - math.cos(math.pi / half)) / 2
        return height(to) / height(turn + 1) * (risen - low) + low

    span = math.ceil(half - s.epoch % half)
    return Course(after, lambda lr: base, span, ON, forgets=_next_turn(half, s.epoch) - s.epoch)


def _last_turn(half: float, before: int) -> int | None:
    """The last odd multiple of `half` before a step, if torch notices it: whole numbers only."""
    if half != int(half) or before <= half:
        return None
    return int(half) * (2 * ((before - 1 - int(half)) // (2 * int(half))) + 1)


def _next_turn(half: float, after: int) -> float:
    """The first odd multiple of `half` behind a step: the rate is `eta_min` there in any case."""
    if half != int(half):
        return math.inf
    turns = (after - int(half)) // (2 * int(half)) + 1
    return half * (2 * turns + 1)


def warm_restarts(s: Setting) -> Course:
    first, low, base = s.count("T_i"), s.number("eta_min"), s.base
    current, times = s.number("T_cur"), s.count("T_mult")
    if first < 1 or times < 1:
        raise NotTold(f"T_i is {first}, T_mult {times}")
    began = s.epoch

    def after(lr: float, epoch: int, n: int) -> float:
        step, length = current + (epoch - began) + n, first
        if times == 1:
            step %= length
        while step >= length:
            step, length = step - length, length * times
        return low + (base - low) * (1 + math.cos(math.pi * step / length)) / 2

    left = max(0, math.ceil(first - current))
    span = left + first * times
    corners = (left - 1, left, span - 1)
    return Course(after, lambda lr: after(lr, began, 0), span, ON, corners, forgets=1)


def one_cycle(s: Setting) -> Course:
    total, phases = s.number("total_steps"), list(_phases(s))
    ends = [end for end, _, _ in phases]
    shape = _shape(s.scheduler.fields.get("_anneal_func_type"))

    def at(step: int) -> float:
        i = min(bisect_left(ends, step), len(ends) - 1)
        begin, (end, start_lr, end_lr) = ends[i - 1] if i else 0.0, phases[i]
        return shape(start_lr, end_lr, (step - begin) / (end - begin))

    def after(lr: float, epoch: int, n: int) -> float:
        if not n:
            return lr
        return at(epoch + n) if epoch + n <= total else UNKNOWN

    left = [math.floor(end) - s.epoch for end in ends]
    corners = tuple(step for end in left for step in (end, end + 1))
    return Course(after, lambda lr: at(0), max(0, left[-1]), FAILS, corners, forgets=1)


def _phases(s: Setting) -> Iterator[tuple[float, float, float]]:
    """The last step of each phase, and the rates that it leads from and to."""
    phases = s.scheduler.fields.get("_schedule_phases")
    if not isinstance(phases, Sequence) or not phases:
        raise NotTold("it has no phases")
    for phase in phases:
        if not isinstance(phase, Mapping):
            raise NotTold("its phases are no phases")
        rates = (s.of_group(str(phase.get(name))) for name in ("start_lr", "end_lr"))
        yield (told(phase.get("end_step"), "end_step"), *rates)  # type: ignore[misc]


def _shape(name: Value) -> Callable[[float, float, float], float]:
    """The two ways from one rate to another."""
    if name == "linear":
        return lambda start, end, share: (end - start) * share + start
    if name == "cos":
        return lambda start, end, share: end + (start - end) / 2 * (math.cos(math.pi * share) + 1)
    raise NotTold(f"its curve is neither 'cos' nor 'linear' but {name!r:.40}")


def cyclic(s: Setting) -> Course:
    size, ratio, low, high = (
        s.number("total_size"),
        s.number("step_ratio"),
        s.base,
        s.own("max_lrs"),
    )
    scale = _cycle_scale(s)

    def after(lr: float, epoch: int, n: int) -> float:
        step = epoch + n
        cycle = math.floor(1 + step / size)
        x = 1.0 + step / size - cycle
        part = x / ratio if x <= ratio else (x - 1) / (ratio - 1)
        return low + (high - low) * part * scale(cycle, step)

    begun = s.epoch % size
    turns = (ratio * size - begun, size - begun, (1 + ratio) * size - begun)
    span = math.ceil(2 * size - begun)
    corners = tuple(map(round, turns))
    return Course(after, lambda lr: after(lr, 0, 0), span, ON, corners, forgets=1)


def _cycle_scale(s: Setting) -> Callable[[int, int], float]:
    """What the height of a cycle is multiplied with, by the number of the cycle and the step."""
    mode = s.scheduler.fields.get("mode")
    if s.scheduler.fields.get("_scale_fn_custom") is not None:
        raise NotTold("its scale_fn is code, not in the file")
    if mode == "triangular":
        return lambda cycle, step: 1.0
    if mode == "triangular2":
        return lambda cycle, step: 1 / 2.0 ** (cycle - 1)
    if mode == "exp_range":
        gamma = s.number("gamma")
        return lambda cycle, step: math.pow(gamma, step)
    raise NotTold(f"its mode is {mode!r:.40}")


def swa(s: Setting) -> Course:
    length, final, count = s.count("anneal_epochs"), s.of_group("swa_lr"), s.count("_step_count")
    began = s.epoch
    linear = s.scheduler.fields.get("_anneal_strategy") == "linear"

    def share(step: int) -> float:
        t = max(0.0, min(1.0, step / max(1, length)))
        return t if linear else (1 - math.cos(math.pi * t)) / 2

    def after(lr: float, epoch: int, n: int) -> float:
        if not n:
            return lr
        step = count - 1 + epoch - began
        before, now = share(step), share(step + n)
        # Torch finds out where it came from, so that a rate that was changed by hand stays changed.
        origin = final if before == 1 else (lr - before * final) / (1 - before)
        return final * now + origin * (1 - now)

    left = max(1, length) - count + 1
    return Course(after, lambda lr: lr, max(0, left), forgets=max(1, left), keeps=True)

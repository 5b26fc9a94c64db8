"""Where a curve of learning rates goes, in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liontool.inspect.lr_curve import Curve, GroupCurve
from liontool.inspect.schedules.course import CODE, FAILS, ON, STAYS, WAITS

_NOISE = 1e-9
_MOST_LISTED = 3
_MOST_TOLD = 2
_CYCLES = ("CosineAnnealingWarmRestarts", "CyclicLR")


@dataclass(frozen=True)
class Stretch:
    """A part of a curve in which the rate only rises, or only falls.

    Attributes:
        end: The step from now on that it leads to.
        falls: Whether it falls.
    """

    end: int
    falls: bool


def ending(curve: Curve, kind: str) -> str:
    """How the rates come to their end.

    Args:
        curve: With something left, or a last step that torch takes.
        kind: The class that drives the rates at the end.
    """
    position = curve.position or 0
    if curve.span == 0:
        return f"beyond step {position + 1:,} torch raises an error"
    found = {course for one in curve.curves if (course := stretches(one))}
    if len(found) == 1:
        return _told(curve, found.pop(), kind)
    end = max((course[-1].end for course in found), default=curve.span)
    verb = "comes to" if found else "is"
    text = f"by its step {position + end:,} lr {verb} {_rates(curve, end)}"
    return text + _beyond(curve, kind, None)


def stretches(one: GroupCurve) -> tuple[Stretch, ...]:
    """The turns of a curve, without the parts in which it stays."""
    points = [(s, rate) for s, rate in zip(one.steps, one.rates, strict=True) if rate is not None]
    if not points:
        return ()
    noise = _NOISE * max(abs(rate) for _, rate in points)
    found: list[Stretch] = []
    before = points[0][1]
    for step, rate in points[1:]:
        if abs(rate - before) > noise:
            if found and found[-1].falls == (rate < before):
                found.pop()
            found.append(Stretch(step, rate < before))
        before = rate
    return tuple(found)


def by_group(rates: Sequence[float | None]) -> str:
    """The learning rates of groups: few are listed, of more the lowest and the highest."""
    known = [rate for rate in rates if rate is not None]
    texts = list(dict.fromkeys(f"{rate:.6g}" for rate in known))
    if len(texts) > _MOST_LISTED:
        return f"between {min(known):.6g} and {max(known):.6g} (by group)"
    listed = " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
    return f"{listed} (by group)" if len(texts) > 1 else listed or "unknown"


def _told(curve: Curve, course: Sequence[Stretch], kind: str) -> str:
    """The first turns of a curve one by one, and its end."""
    position = curve.position or 0
    parts = [
        f"by {position + one.end:,} it {'falls' if one.falls else 'rises'} to "
        f"{_rates(curve, one.end)}"
        for one in course[:_MOST_TOLD]
    ]
    text = ", ".join(parts).replace("by ", "by its step ", 1).replace(" it ", " lr ", 1)
    if curve.then == ON and kind in _CYCLES:
        return f"{text} and goes on in cycles"
    if len(course) > _MOST_TOLD:
        end = course[-1].end
        text += f" and turns again; by {position + end:,} it is {_rates(curve, end)}"
    return text + _beyond(curve, kind, course[-1].falls)


def _rates(curve: Curve, step: int) -> str:
    return by_group([one.rates[one.steps.index(step)] for one in curve.curves])


def _beyond(curve: Curve, kind: str, falls: bool | None) -> str:
    """What comes after the end of what is drawn."""
    if curve.then == ON and kind == "CosineAnnealingLR" and falls is not None:
        return f" and {'rises' if falls else 'falls'} again after that"
    return {
        STAYS: " and stays there",
        ON: " and goes on",
        FAILS: f"; beyond step {(curve.position or 0) + curve.span + 1:,} torch raises an error",
        CODE: "; the rest is code",
        WAITS: "; the rest goes by a metric",
    }.get(curve.then, "")

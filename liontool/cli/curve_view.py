"""The rest of a learning rate's curve as a small picture."""

from __future__ import annotations

from collections.abc import Sequence

from liontool import wording
from liontool.cli import render
from liontool.cli.bars import bars
from liontool.inspect.lr_curve import Curve, GroupCurve

_WIDTH = 60
_ROWS = 4
_MOST_CURVES = 8
_OTHER_COLUMNS = 54  # beside a spark line


def show(page: render.Page, curve: Curve) -> None:
    """Draw what remains: four lines high, or a line for each where groups have their own."""
    if curve.position is None or not curve.span or not curve.curves:
        return
    if _same_shape(curve.curves):
        _picture(page, curve)
    else:
        _lines(page, curve)


def _picture(page: render.Page, curve: Curve) -> None:
    one = max(curve.curves, key=_peak)
    drawn = bars(_columns(one, _width(page)), _ROWS, blocks=page.blocks)
    top, zero = wording.value(_peak(one)), "0"
    margin = max(len(top), len(zero))
    labels = [top, *[""] * (_ROWS - 2), zero]
    page.lines(
        *(f"  {label:>{margin}} {line}" for label, line in zip(labels, drawn, strict=True)),
        f"  {'':>{margin}} {_axis(curve, _width(page))}",
    )
    if len(curve.curves) > 1:
        page.items([f"drawn for group {one.groups[0]}; the curves of the others have its shape"])


def _lines(page: render.Page, curve: Curve) -> None:
    """A spark line for each curve, all of them to one scale."""
    shown = curve.curves[:_MOST_CURVES]
    top, width = max(map(_peak, shown)), max(10, min(40, page.width - _OTHER_COLUMNS))
    page.table(
        ("group", f"lr from step {curve.position:,} to {_last(curve):,}", "now", "peak", "end"),
        [
            (
                _groups(one),
                bars(_columns(one, width), blocks=page.blocks, top=top)[0],
                *map(wording.value, (one.rates[0], _peak(one), one.rates[-1])),
            )
            for one in shown
        ],
        left=2,
    )
    if len(curve.curves) > len(shown):
        page.items([f"and {len(curve.curves) - len(shown)} more, all of them with --json"])


def _width(page: render.Page) -> int:
    return max(10, min(_WIDTH, page.width - 20))


def _same_shape(curves: Sequence[GroupCurve]) -> bool:
    """Whether every curve is a multiple of the first."""
    first = curves[0].rates
    for one in curves[1:]:
        scale = _peak(one) / _peak(curves[0]) if _peak(curves[0]) else 1.0
        pairs = zip(first, one.rates, strict=True)
        if any(abs((a or 0) * scale - (b or 0)) > 0.01 * _peak(one) for a, b in pairs):
            return False
    return True


def _peak(one: GroupCurve) -> float:
    return max((rate for rate in one.rates if rate is not None), default=0.0)


def _columns(one: GroupCurve, width: int) -> list[float | None]:
    """The rate at each of `width` even steps: that of the last point before it."""
    points = list(zip(one.steps, one.rates, strict=True))
    found: list[float | None] = []
    at = 0
    for column in range(width):
        step = points[-1][0] * column / (width - 1)
        while at + 1 < len(points) and points[at + 1][0] <= step:
            at += 1
        found.append(points[at][1])
    return found


def _axis(curve: Curve, width: int) -> str:
    left, right = f"step {curve.position:,}", f"{_last(curve):,}"
    return left + right.rjust(max(len(right) + 1, width - len(left)))


def _last(curve: Curve) -> int:
    return (curve.position or 0) + curve.span


def _groups(one: GroupCurve) -> str:
    shown = ", ".join(map(str, one.groups[:4]))
    return shown + (", ..." if len(one.groups) > 4 else "")

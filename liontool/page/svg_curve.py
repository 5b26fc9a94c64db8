"""What remains of the learning rate as a picture."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.inspect.lr_curve import Curve, GroupCurve
from liontool.page.markup import svg, text, word
from liontool.page.scales import ticks
from liontool.wording import value

MOST_CURVES = 6
"""Groups that are drawn."""

_WIDTH, _HEIGHT = 360.0, 190.0
_MOST = 1e30
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 350.0, 26.0, 152.0


def is_drawn(curve: Curve) -> bool:
    """Whether there is anything to draw."""
    rates = (rate for one in curve.curves for rate in known(one))
    return bool(curve.position is not None and curve.span and any(r is not None for r in rates))


def known(one: GroupCurve) -> list[float | None]:
    """The rates that can be drawn; a file may hold any number."""
    return [rate if rate is not None and 0 <= rate <= _MOST else None for rate in one.rates]


def picture(curve: Curve) -> str:
    """The curves of the groups over the steps, with a mark where the run stands."""
    shown = curve.curves[:MOST_CURVES]
    top = max((rate or 0.0 for one in shown for rate in known(one)), default=0.0) or 1.0
    parts = [*_axes(curve, top), *_lines(curve, top)]
    label = (
        f"Learning rate from step {curve.position:,} to {(curve.position or 0) + curve.span:,}: "
        + "; ".join(
            f"{groups(one)} from {value(one.rates[0])} to {value(one.rates[-1])}" for one in shown
        )
    )
    return svg(_WIDTH, _HEIGHT, label, parts) + _legend(curve)


def groups(one: GroupCurve) -> str:
    """ "group 0", "groups 0, 1"."""
    shown = ", ".join(map(str, one.groups[:4])) + (", …" if len(one.groups) > 4 else "")
    return f"group {shown}" if len(one.groups) == 1 else f"groups {shown}"


def _axes(curve: Curve, top: float) -> Iterator[str]:
    start = curve.position or 0
    for rate in ticks(0.0, top):
        y = _y(rate, top)
        yield f'<path class=grid d="M{_LEFT} {y:.1f}H{_RIGHT}"/>'
        yield word(_LEFT - 6, y + 4, f"{rate:.3g}", "end")
    for step in ticks(start, start + curve.span):
        x = _x(step - start, curve.span)
        yield f'<path class=axis d="M{x:.1f} {_BOTTOM}v4"/>'
        yield word(x, _BOTTOM + 16, f"{step:,.0f}", "end" if x > _RIGHT - 15 else "middle")
    yield f'<path class=axis d="M{_LEFT} {_BOTTOM}H{_RIGHT}"/>'
    yield word((_LEFT + _RIGHT) / 2, _HEIGHT - 8, "step of the scheduler", "middle")
    yield word(2, 12, "learning rate")


def _lines(curve: Curve, top: float) -> Iterator[str]:
    for index, one in reversed(list(enumerate(curve.curves[:MOST_CURVES]))):
        path, pen = [], "M"
        for step, rate in zip(one.steps, known(one), strict=True):
            if rate is None:
                pen = "M"
                continue
            path.append(f"{pen}{_x(step, curve.span):.1f} {_y(rate, top):.1f}")
            pen = "L"
        yield f'<path class="line l{index}" d="{"".join(path)}"/>'
    now = known(curve.curves[0])[0] or 0.0
    yield f'<path class=now d="M{_LEFT} {_TOP}V{_BOTTOM}"/>'
    yield (
        f'<circle class=here cx="{_LEFT}" cy="{_y(now, top):.1f}" r="4">'
        f"<title>{text(f'now: step {curve.position:,}, lr {value(now)}')}</title></circle>"
    )


def _legend(curve: Curve) -> str:
    """Which line is which; needed for several, and the dot is explained for all."""
    keys = [f"<span class=key><i class=dot></i>now, step {curve.position:,}</span>"]
    if len(curve.curves) > 1:
        keys += [
            f'<span class=key><i class="bar l{index}"></i>{text(groups(one))}</span>'
            for index, one in enumerate(curve.curves[:MOST_CURVES])
        ]
    if len(curve.curves) > MOST_CURVES:
        keys.append(f"<span class=key>and {len(curve.curves) - MOST_CURVES} more</span>")
    return f"<p class=legend>{''.join(keys)}</p>"


def _x(step: float, span: int) -> float:
    return _LEFT + step / span * (_RIGHT - _LEFT)


def _y(rate: float, top: float) -> float:
    return _BOTTOM - rate / top * (_BOTTOM - _TOP)

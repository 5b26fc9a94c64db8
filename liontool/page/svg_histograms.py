"""Histograms of values by their power of two, one below the other."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.measure.summary import ValueSummary
from liontool.page.exponents import Range, common
from liontool.page.markup import cut, svg, text, word
from liontool.wording import share

_WIDTH = 360.0
_LEFT, _RIGHT = 108.0, 346.0
_ROW, _GAP = 20.0, 3.0
_LONGEST = 13
_TOP = 4.0
_MOST_MARKS = 6

Row = tuple[str, ValueSummary]


def picture(kind: str, rows: Sequence[Row]) -> str:
    """One histogram for each row, all of them over one axis."""
    span = common([values for _, values in rows])
    if span is None:
        return "<p class=legend>all values are zero, or none is finite</p>"
    bottom = _TOP + _ROW * len(rows)
    parts = [*_axis(span, bottom), *_histograms(rows, span)]
    label = (
        f"Histograms of {kind} by size of the values, {len(rows)} rows, "
        f"from 2 to the power of {span.low} to 2 to the power of {span.high + 1}"
    )
    return svg(_WIDTH, bottom + 34, label, parts)


def _axis(span: Range, bottom: float) -> Iterator[str]:
    """A mark for each power of ten, or for each second one and so on."""
    for mark, exponent in span.marks(_MOST_MARKS):
        x = _x(exponent, span)
        yield f'<path class=grid d="M{x:.1f} {_TOP}V{bottom:.1f}"/>'
        yield word(x, bottom + 14, mark, "middle")
    yield f'<path class=axis d="M{_LEFT} {bottom:.1f}H{_RIGHT}"/>'
    yield word((_LEFT + _RIGHT) / 2, bottom + 30, "size of the values", "middle")


def _histograms(rows: Sequence[Row], span: Range) -> Iterator[str]:
    for index, (name, values) in enumerate(rows):
        base = _TOP + _ROW * (index + 1)
        yield word(_LEFT - 6, base - 5, cut(name, _LONGEST), "end")
        if found := span.shares(values):
            told = f"{name}: RMS {values.rms or 0:.3g}, zeros {share(values.zero_share)}"
            path = _outline(found, base, span)
            yield f'<path class=fill d="{path}"><title>{text(told)}</title></path>'
        else:
            yield word(_LEFT + 6, base - 5, "all zero" if values.zeros else "not finite")


def _outline(found: Sequence[float], base: float, span: Range) -> str:
    """Steps as wide as a power of two; each row is as high as its largest."""
    top = max(found)
    steps = "".join(
        f"V{base - part / top * (_ROW - _GAP):.1f}H{_x(span.low + index + 1, span):.1f}"
        for index, part in enumerate(found)
    )
    return f"M{_LEFT} {base:.1f}{steps}V{base:.1f}Z"


def _x(exponent: float, span: Range) -> float:
    return _LEFT + (exponent - span.low) / (span.high + 1 - span.low) * (_RIGHT - _LEFT)

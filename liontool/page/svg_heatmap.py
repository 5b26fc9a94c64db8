"""RMS by layer as a heat map."""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import NamedTuple

from liontool.measure.summary import ValueSummary
from liontool.page.layers import Grid
from liontool.page.markup import cut, svg, text, word
from liontool.page.scales import SHADES, LogScale, from_log
from liontool.wording import count

_WIDTH = 360.0
_WIDEST, _HIGHEST = 26.0, 18.0
_LONGEST = 30  # letters of the name of a column
_LETTER = 6.6


class _Place(NamedTuple):
    """Where the first cell lies, and how large each is."""

    left: float
    top: float
    wide: float
    high: float


def picture(grid: Grid) -> str:
    """Rows are layers, columns what they consist of; a darker or lighter cell is a larger RMS."""
    scale = LogScale.over(values.rms for values in grid.cells.values())
    left = 10 + _LETTER * max(map(len, grid.rows), default=0)
    wide = min(_WIDEST, (_WIDTH - 4 - left) / max(1, len(grid.columns)))
    names = [cut(name, _LONGEST) for name in grid.columns]
    top = 10 + _LETTER * max(map(len, names), default=0)
    high = _HIGHEST if len(grid.rows) <= 24 else 12.0
    height = top + high * len(grid.rows) + 6
    parts = [
        *_rows(grid, left, top, high),
        *_columns(grid, names, left, wide, top),
        *_cells(grid, scale, _Place(left, top, wide, high)),
    ]
    return svg(_WIDTH, height, _label(grid, scale), parts) + legend(scale)


def is_bad(values: ValueSummary) -> bool:
    """Whether a cell has a mark instead of a color: values that are not finite, or their RMS."""
    return bool(values.nan or values.infinite or values.rms == inf)


def legend(scale: LogScale | None) -> str:
    """The colours from the least to the largest value."""
    if scale is None:
        return "<p class=legend>all values are zero, or none is finite</p>"
    shades = "".join(f"<i class=c{shade}></i>" for shade in range(SHADES))
    return (
        f"<p class=legend><span>RMS {from_log(scale.low)}</span><span class=ramp>{shades}</span>"
        f"<span>{from_log(scale.high)}</span></p>"
    )


def _label(grid: Grid, scale: LogScale | None) -> str:
    span = "no RMS above zero"
    if scale is not None:
        span = f"scale of RMS from {from_log(scale.low)} to {from_log(scale.high)}"
    return (
        f"Heat map of {grid.kind} in {grid.title or 'all parameters'}: "
        f"{count(len(grid.rows), 'row')} of layers, {count(len(grid.columns), 'column')}, {span}"
    )


def _rows(grid: Grid, left: float, top: float, high: float) -> Iterator[str]:
    every = 1 if high >= _HIGHEST else 2
    for row, label in enumerate(grid.rows):
        if row % every == 0:
            yield word(left - 6, top + row * high + high / 2 + 4, label, "end")


def _columns(grid: Grid, names: list[str], left: float, wide: float, top: float) -> Iterator[str]:
    for column, name in enumerate(names):
        x, y = left + column * wide + wide / 2 + 4, top - 6
        shown = text(name or "all")
        yield (
            f'<text x="{x:.1f}" y="{y:.1f}" transform="rotate(-90 {x:.1f} {y:.1f})">{shown}'
            f"<title>{text(grid.columns[column])}</title></text>"
        )


def _cells(grid: Grid, scale: LogScale | None, at: _Place) -> Iterator[str]:
    for (row, column), values in grid.cells.items():
        name = f"{grid.rows[row]}.{grid.columns[column]}".rstrip(".")
        x, y = at.left + column * at.wide, at.top + row * at.high
        yield (
            f'<rect class="{_style(values, scale)}" x="{x:.1f}" y="{y:.1f}" '
            f'width="{at.wide - 1:.1f}" height="{at.high - 1:g}">'
            f"<title>{text(f'{name}: {_told(values)}')}</title></rect>"
        )


def _style(values: ValueSummary, scale: LogScale | None) -> str:
    if is_bad(values):
        return "bad"
    if not values.rms or scale is None:
        return "none"
    return f"c{scale.shade(values.rms)}"


def _told(values: ValueSummary) -> str:
    if values.nan or values.infinite:
        return f"{values.nan:,} NaN, {values.infinite:,} infinite"
    return "all zero" if not values.rms else f"RMS {values.rms:.3g}"

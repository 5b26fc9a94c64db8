"""Numbers as a row of little bars, one line high or several."""

from __future__ import annotations

from collections.abc import Sequence

_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN = " ..::::##"
"""The same where the terminal knows no blocks."""


def bars(
    values: Sequence[float | None], rows: int = 1, *, blocks: bool = True, top: float | None = None
) -> list[str]:
    """Lines of text, the highest first, with one bar for each value.

    Args:
        values: 0 or more; a gap is left for None.
        rows: How many lines high.
        blocks: Whether block characters can be shown.
        top: What a bar of full height stands for, the largest value unless given.
    """
    letters = _BLOCKS if blocks else _PLAIN
    known = [value for value in values if value is not None]
    top = max(known, default=0) if top is None else top
    heights = [None if v is None else _height(v, top, 8 * rows) for v in values]
    return [
        "".join(_letter(letters, height, 8 * row) for height in heights).rstrip()
        for row in reversed(range(rows))
    ]


def _height(value: float, top: float, levels: int) -> int:
    """At least 1, so that a value that is there can be seen."""
    return max(1, min(levels, round(value / top * levels))) if top > 0 else 1


def _letter(letters: str, height: int | None, below: int) -> str:
    return letters[max(0, min(8, (height or 0) - below))]

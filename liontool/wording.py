"""Numbers, sizes and values as people read them; the result is safe to print."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from liontool.escape import safe

NOTHING = "-"
"""Stands for a value that is not there."""

_LONGEST = 200
_LONGEST_LIST = 1000
_MOST = 32
_MOST_RATES = 4

_UNITS = ("B", "kB", "MB", "GB", "TB", "PB")


def value(item: Any) -> str:
    """A hyperparameter or a state field: six digits are enough to recognise a learning rate."""
    if item is None:
        return NOTHING
    if isinstance(item, bool):
        return "yes" if item else "no"
    if isinstance(item, int):
        return str(item)
    if isinstance(item, float):
        return f"{item:.6g}"
    if isinstance(item, Mapping):
        return _listed(f"{safe(name)} {value(part)}" for name, part in item.items())
    if isinstance(item, Sequence) and not isinstance(item, (str, bytes, bytearray)):
        return _listed(map(value, item)) or NOTHING
    return safe(_cut(str(item), _LONGEST))


def _listed(words: Iterator[str]) -> str:
    shown = list(islice(words, _MOST))
    text = ", ".join([*shown, "..."] if next(words, None) is not None else shown)
    return _cut(text, _LONGEST_LIST)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def rates(item: Any) -> str:
    """Learning rates: one for each group, one alone where all are the same, a range for many."""
    text = value(item)
    words = text.split(", ")
    if len(words) > _MOST_RATES and all(isinstance(rate, (int, float)) for rate in item):
        low, high = value(min(item)), value(max(item))
        return low if low == high else f"{low} to {high}"
    return words[0] if len(set(words)) == 1 else text


def share(part: float | None) -> str:
    """Per cent, as exactly as it matters: "0 %", "0.03 %", "12 %"."""
    if part is None:
        return NOTHING
    return f"{part:.0%}".replace("%", " %") if part >= 0.1 else f"{100 * part:.2g} %"


def count(number: int | None, noun: str = "") -> str:
    """ "1,234 tensors", "1 tensor"; "-" for None."""
    if number is None:
        return NOTHING
    plural = "" if number == 1 else "s"
    return f"{number:,} {noun}{plural}" if noun else f"{number:,}"


def size(number: int) -> str:
    """Bytes in units of 1000, three digits: "81.2 MB"."""
    amount, unit = float(number), 0
    while round(amount, 1) >= 1000 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    if unit == 0:
        return f"{number} B"
    digits = 0 if amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {_UNITS[unit]}"


def saving(before: int, after: int) -> str:
    """ "3.00 GB before, 2.00 GB after: 33 % less"."""
    text = f"{size(before)} before, {size(after)} after"
    if not before or before == after:
        return text
    change = 100 * (after - before) / before
    return f"{text}: {abs(change):.0f} % {'less' if change < 0 else 'more'}"


def position(steps: int | None, length: float | None) -> str:
    """ "500 of 1,000"; without what is not known, and "not begun" before the first."""
    if steps is not None and steps < 0:
        return "not begun"
    if length is None:
        return count(steps)
    return f"{count(steps)} of {length:,.0f}"

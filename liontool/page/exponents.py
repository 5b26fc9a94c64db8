"""Histograms of binary exponents cut to the range that matters, so that many have one axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from liontool.measure.summary import ValueSummary

_TAIL = 5e-3
_FEWEST = 8
_TENTH = math.log10(2)


@dataclass(frozen=True)
class Range:
    """Exponents from `low` to `high`; what lies below `low` counts with it."""

    low: int
    high: int

    def marks(self, most: int) -> list[tuple[str, float]]:
        """Powers of ten in the range, with the exponents that they lie at."""
        first = math.ceil(self.low * _TENTH)
        last = math.floor((self.high + 1) * _TENTH)
        every = max(1, -(-(last - first + 1) // most))
        powers = range(last, first - 1, -every)
        return [(f"1e{power}" if power else "1", power / _TENTH) for power in powers]

    def shares(self, values: ValueSummary) -> list[float]:
        """Share of the values that are not zero, by exponent."""
        found = [0] * (self.high - self.low + 1)
        for exponent, number in enumerate(values.exponents, values.lowest_exponent or 0):
            found[max(0, exponent - self.low)] += number
        total = sum(found)
        return [number / total for number in found] if total else []


def common(every: Sequence[ValueSummary]) -> Range | None:
    """The exponents of all of them but the smallest values, one in 200 of each; None without."""
    spans = [_span(values) for values in every if values.lowest_exponent is not None]
    if not spans:
        return None
    low, high = min(low for low, _ in spans), max(high for _, high in spans)
    return Range(min(low, high - _FEWEST), high)


def _span(values: ValueSummary) -> tuple[int, int]:
    low = values.lowest_exponent or 0
    total, below = sum(values.exponents), 0
    for index, number in enumerate(values.exponents):
        below += number
        if below > _TAIL * total:
            return low + index, low + len(values.exponents) - 1
    return low, low

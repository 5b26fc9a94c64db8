"""Where the marks of an axis go, and which of a few colours a number has."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

SHADES = 10
"""How many colours the scale of a heat map has."""


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        return [low]
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.7)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [index * step for index in range(first, last + 1)]


@dataclass(frozen=True)
class LogScale:
    """A logarithmic scale of shades, over a power of ten at least: small differences look small.

    Attributes:
        low: Logarithm to base 10 of what the first shade begins with.
        high: Likewise, of what the last one ends with.
    """

    low: float
    high: float

    @classmethod
    def over(cls, values: Iterable[float | None]) -> LogScale | None:
        """The scale of all that are positive and finite; None without any."""
        known = [math.log10(v) for v in values if v is not None and 0 < v < math.inf]
        if not known:
            return None
        missing = max(0.0, 1 - (max(known) - min(known))) / 2
        return cls(min(known) - missing, max(known) + missing)

    def shade(self, value: float) -> int:
        """From 0 to `SHADES` - 1."""
        part = (math.log10(value) - self.low) / (self.high - self.low)
        return max(0, min(SHADES - 1, int(part * SHADES)))


def from_log(power: float) -> str:
    """Ten to that power in two digits."""
    return f"{10.0 ** min(power, 308.0):.2g}"

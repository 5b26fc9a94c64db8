"""What the values of a tensor come to, as data that can be put together."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class ValueSummary:
    """The values of one tensor, or of several. All but the counts is over finite values.

    A complex element counts as two values.

    Attributes:
        count: How many values.
        nan: How many are NaN.
        infinite: How many are infinite, of either sign.
        zeros: How many are zero.
        norm: Root of the sum of squares.
        rms: Root of the mean square; None without finite values.
        mean: Their mean; None likewise.
        min: The smallest; None likewise.
        max: The largest; None likewise.
        lowest_exponent: The binary exponent that `exponents` begins with: e where
            ``2**e <= |x| < 2**(e + 1)``; None where all is zero or not finite.
        exponents: How many values have this exponent, the next one, and so on; zeros have none.
    """

    count: int = 0
    nan: int = 0
    infinite: int = 0
    zeros: int = 0
    norm: float = 0.0
    rms: float | None = None
    mean: float | None = None
    min: float | None = None
    max: float | None = None
    lowest_exponent: int | None = None
    exponents: tuple[int, ...] = ()

    @property
    def finite(self) -> int:
        """How many values are finite."""
        return self.count - self.nan - self.infinite

    @property
    def zero_share(self) -> float | None:
        """Share of zeros among the finite values; None where there are none."""
        return self.zeros / self.finite if self.finite else None


def merged(parts: Iterable[ValueSummary]) -> ValueSummary:
    """The summary of all values together."""
    every = [part for part in parts if part.count]
    finite = sum(part.finite for part in every)
    norm = math.hypot(*(part.norm for part in every))
    means = [part.mean * (part.finite / finite) for part in every if part.mean is not None]
    lowest, exponents = _together(every)
    return ValueSummary(
        count=sum(part.count for part in every),
        nan=sum(part.nan for part in every),
        infinite=sum(part.infinite for part in every),
        zeros=sum(part.zeros for part in every),
        norm=norm,
        rms=norm / math.sqrt(finite) if finite else None,
        mean=math.fsum(means) if finite else None,
        min=min((part.min for part in every if part.min is not None), default=None),
        max=max((part.max for part in every if part.max is not None), default=None),
        lowest_exponent=lowest,
        exponents=exponents,
    )


def _together(parts: Iterable[ValueSummary]) -> tuple[int | None, tuple[int, ...]]:
    """All counts by exponent, from the lowest that occurs to the highest."""
    counts: dict[int, int] = {}
    for part in parts:
        for exponent, number in enumerate(part.exponents, part.lowest_exponent or 0):
            counts[exponent] = counts.get(exponent, 0) + number
    if not counts:
        return None, ()
    return min(counts), tuple(counts.get(e, 0) for e in range(min(counts), max(counts) + 1))

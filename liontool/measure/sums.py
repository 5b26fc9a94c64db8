"""Running sums over the values of one tensor, block by block: exact counts, sums in float64.

Numbers of up to 16 bits are not computed with at all: how often each of their codes occurs says
everything. The others are, with NaN and infinities found by their exponents, which are counted
anyway.
"""

from __future__ import annotations

from math import fsum, inf, ldexp, sqrt
from typing import TYPE_CHECKING, Any, Protocol

from liontool.checkpoint.document import ITEM_SIZES
from liontool.checkpoint.encoding import decoded
from liontool.measure.exponents import Exponents, codes, folded
from liontool.measure.products import dot, total
from liontool.measure.scratch import scratch
from liontool.measure.summary import ValueSummary

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]
    Block = bytes | memoryview

_MANY = 1 << 18  # from so many elements on it pays to count codes of 16 bits

_HALVES = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}
_SAFE = 400  # squares of numbers with smaller exponents, and sums of them, are numbers too


class ValueSums(Protocol):
    """What both kinds of sums can do. Blocks hold whole elements, little-endian."""

    def add(self, block: Block) -> None:
        """Take in a block."""

    def add_still(self, elements: int) -> None:
        """Take in elements of zero bytes."""

    def join(self, other: Any) -> None:
        """Take in what another one of the same kind has taken in."""

    def concluded(self) -> ValueSummary:
        """What they come to."""


def sums_for(dtype: str, elements: int) -> ValueSums:
    """Sums for a tensor of so many elements; a complex one counts as two values."""
    real, parts = real_dtype(dtype), 2 if dtype in _HALVES else 1
    width = ITEM_SIZES[real]
    if width == 1 or (width == 2 and elements * parts >= _MANY):
        return CodeSums(real, parts)
    return NumberSums(real, parts)


def real_dtype(dtype: str) -> str:
    """That of the halves of complex numbers, or the same."""
    return _HALVES.get(dtype, dtype)


class CodeSums:
    """Sums for numbers of 8 or 16 bits: how often each code occurs."""

    def __init__(self, dtype: str, parts: int = 1) -> None:
        import numpy as np

        self._dtype, self._parts = dtype, parts
        self._width = ITEM_SIZES[dtype]
        self._counts = np.zeros(1 << 8 * self._width, np.int64)

    def add(self, block: Block) -> None:
        """Take in a block."""
        import numpy as np

        even = len(block) & ~1
        wide = scratch("wide", even // 2, np.int64)
        np.copyto(wide, np.frombuffer(block[:even], "<u2"))  # bincount would keep the GIL for it
        found = np.bincount(wide, minlength=1 << 16)
        self._counts += found if self._width == 2 else folded(found)
        if even < len(block):
            self._counts[block[-1]] += 1

    def add_still(self, elements: int) -> None:
        """Take in elements of zero bytes."""
        self._counts[0] += elements * self._parts

    def join(self, other: CodeSums) -> None:
        """Take in what another one of the same kind has taken in."""
        self._counts += other._counts

    def concluded(self) -> ValueSummary:
        """What they come to."""
        import numpy as np

        (used,) = np.nonzero(self._counts)
        numbers = decoded(used.astype(f"<u{self._width}").tobytes(), self._dtype)
        with np.errstate(invalid="ignore"):  # a NaN that signals stays one
            return _of_counts(numbers.astype(np.float64), self._counts[used])


def _of_counts(numbers: Array, counts: Array) -> ValueSummary:
    """The summary of numbers that occur so often."""
    import numpy as np

    finite = np.isfinite(numbers)
    known, often = numbers[finite], counts[finite]
    moving = known != 0
    exponents = Exponents()
    exponents.add_numbers(known[moving], often[moving])
    lowest, by_exponent = exponents.concluded()
    total = int(often.sum())
    square = fsum(np.square(known) * often)
    return ValueSummary(
        count=int(counts.sum()),
        nan=int(counts[np.isnan(numbers)].sum()),
        infinite=int(counts[np.isinf(numbers)].sum()),
        zeros=int(often[~moving].sum()),
        norm=sqrt(square),
        rms=sqrt(square / total) if total else None,
        mean=fsum(known * often) / total if total else None,
        min=float(known.min()) if total else None,
        max=float(known.max()) if total else None,
        lowest_exponent=lowest,
        exponents=by_exponent,
    )


class NumberSums:
    """Sums for all other numbers, and for few of any kind."""

    def __init__(self, dtype: str, parts: int = 1) -> None:
        self._dtype, self._parts = dtype, parts
        self._count = self._nan = self._infinite = self._zeros = 0
        self._min: float | None = None
        self._max: float | None = None
        self._exponents = Exponents()
        self._sum, self._square = _Scaled(), _Scaled()

    def add(self, block: Block) -> None:
        """Take in a block."""
        import numpy as np

        numbers = decoded(block, self._dtype)
        if numbers.dtype not in (np.float32, np.float64):
            numbers = numbers.astype(np.float64)
        self._count += len(numbers)
        found = codes(numbers)
        if found[-1]:  # the code of NaN and infinity
            numbers = self._without_special(numbers)
            found = codes(numbers)
        if len(numbers):
            self._widen(float(numbers.min()), float(numbers.max()))
            self._add_finite(numbers, found)

    def add_still(self, elements: int) -> None:
        """Take in elements of zero bytes."""
        self._count += elements * self._parts
        self._zeros += elements * self._parts
        self._widen(0.0, 0.0)

    def join(self, other: NumberSums) -> None:
        """Take in what another one of the same kind has taken in."""
        for name in ("_count", "_nan", "_infinite", "_zeros"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        if other._min is not None and other._max is not None:
            self._widen(other._min, other._max)
        self._exponents.join(other._exponents)
        self._sum.add(other._sum.value, other._sum.exponent)
        self._square.add(other._square.value, other._square.exponent)

    def concluded(self) -> ValueSummary:
        """What they come to."""
        finite = self._count - self._nan - self._infinite
        lowest, exponents = self._exponents.concluded()
        return ValueSummary(
            count=self._count,
            nan=self._nan,
            infinite=self._infinite,
            zeros=self._zeros,
            norm=self._square.root(),
            rms=self._square.root(finite) if finite else None,
            mean=self._sum.over(finite) if finite else None,
            min=self._min,
            max=self._max,
            lowest_exponent=lowest,
            exponents=exponents,
        )

    def _widen(self, low: float, high: float) -> None:
        self._min = low if self._min is None else min(self._min, low)
        self._max = high if self._max is None else max(self._max, high)

    def _without_special(self, numbers: Array) -> Array:
        """The finite ones; counts the others."""
        import numpy as np

        nan = int(np.count_nonzero(np.isnan(numbers)))
        finite = np.isfinite(numbers)
        self._nan += nan
        self._infinite += len(numbers) - nan - int(np.count_nonzero(finite))
        return numbers[finite]

    def _add_finite(self, numbers: Array, found: Array) -> None:
        import numpy as np

        self._exponents.add(found, numbers.itemsize)
        if found[0]:
            self._add_small(numbers, int(found[0]))
        wide = scratch("wide", len(numbers), np.float64)
        np.copyto(wide, numbers)
        scale = _scale(found) if numbers.itemsize == 8 else 0
        if scale:
            np.ldexp(wide, scale, out=wide)
        self._sum.add(total(wide), -scale)
        self._square.add(dot(wide, wide), -2 * scale)

    def _add_small(self, numbers: Array, count: int) -> None:
        """Tell zeros from subnormal numbers, which have the same exponent bits."""
        import numpy as np

        zeros = len(numbers) - int(np.count_nonzero(numbers))
        self._zeros += zeros
        if zeros < count:
            wide = numbers.astype(np.float64)
            limit = np.finfo(numbers.dtype).smallest_normal
            self._exponents.add_numbers(wide[(np.abs(wide) < limit) & (wide != 0)])


class _Scaled:
    """A running sum, `value * 2**exponent`: beyond the range of float64 too."""

    def __init__(self) -> None:
        self.value, self.exponent = 0.0, 0

    def add(self, value: float, exponent: int = 0) -> None:
        """Add `value * 2**exponent`."""
        if not value:
            return
        common = max(exponent, self.exponent) if self.value else exponent
        self.value = ldexp(self.value, self.exponent - common) + ldexp(value, exponent - common)
        self.exponent = common

    def over(self, count: int) -> float:
        """The sum divided by `count`."""
        return ldexp(self.value / count, self.exponent)

    def root(self, count: int = 1) -> float:
        """The root of the sum divided by `count`; the exponent is even."""
        try:
            return ldexp(sqrt(self.value / count), self.exponent // 2)
        except OverflowError:
            return inf


def _scale(found: Array) -> int:
    """The power of two to multiply float64 numbers by, so that their squares are numbers."""
    import numpy as np

    top = int(np.flatnonzero(found)[-1]) - 1023
    return -top if abs(top) > _SAFE else 0

"""How many numbers have which binary exponent, counted on their bits: no logarithm is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from liontool.measure.scratch import scratch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LOWEST, HIGHEST = -1074, 1023
"""The exponents of float64, its subnormal numbers included; those of all others lie between."""

# By bytes of an element: bits right of the exponent, the largest code, and what is subtracted.
_LAYOUTS = {4: (23, 0xFF, 127), 8: (52, 0x7FF, 1023)}


class Exponents:
    """Running counts by exponent."""

    def __init__(self) -> None:
        import numpy as np

        self._counts = np.zeros(HIGHEST - LOWEST + 1, np.int64)

    def add(self, codes: Array, width: int) -> None:
        """Take in counts by the exponent bits of normal numbers of `width` bytes."""
        _, special, bias = _LAYOUTS[width]
        start = 1 - bias - LOWEST
        self._counts[start : start + special - 1] += codes[1:special]

    def add_numbers(self, numbers: Array, counts: Array | int = 1) -> None:
        """Take in finite numbers that are not zero, each as often as `counts` says."""
        import numpy as np

        _, exponents = np.frexp(numbers)  # 0.5 <= mantissa < 1
        np.add.at(self._counts, exponents - 1 - LOWEST, counts)

    def join(self, other: Exponents) -> None:
        """Take in what another one has taken in."""
        self._counts += other._counts

    def concluded(self) -> tuple[int | None, tuple[int, ...]]:
        """The lowest exponent that occurs, and the counts from there to the highest."""
        import numpy as np

        (found,) = np.nonzero(self._counts)
        if not len(found):
            return None, ()
        first, last = int(found[0]), int(found[-1])
        return first + LOWEST, tuple(self._counts[first : last + 1].tolist())


def codes(numbers: Array) -> Array:
    """Counts by the exponent bits of float32 or float64 numbers: 0 is zero and subnormal.

    Of float32, exponents are counted in pairs, which takes half as many steps.

    Args:
        numbers: A flat array.
    """
    import numpy as np

    shift, special, _ = _LAYOUTS[numbers.itemsize]
    bits = numbers.view(f"u{numbers.itemsize}")
    if numbers.itemsize == 8:
        wide = scratch("wide", len(bits), np.uint64)
        np.right_shift(bits, np.uint64(shift), out=wide)
        np.bitwise_and(wide, np.uint64(special), out=wide)  # less the sign
        return np.bincount(wide.view(np.int64), minlength=special + 1)
    small = scratch("narrow", len(bits), np.uint8)
    np.right_shift(bits, np.uint32(shift), out=small, casting="unsafe")  # less the sign
    return _by_pairs(small, special + 1)


def _by_pairs(small: Array, count: int) -> Array:
    """How often bytes below `count` occur; they are changed."""
    import numpy as np

    found = np.zeros(count, np.int64)
    if len(small):
        lowest, highest = int(small.min()), int(small.max())
        np.subtract(small, np.uint8(lowest), out=small)  # fewer pairs, which stay in the cache
        even = len(small) & ~1
        pairs = scratch("wide", even // 2, np.int64)
        np.copyto(pairs, small[:even].view(np.uint16))  # bincount would keep the GIL for it
        counts = np.bincount(pairs, minlength=256 * (highest - lowest + 1))
        found[lowest:] = folded(counts)[: count - lowest]
        found[small[even:] + lowest] += 1
    return found


def folded(pairs: Array) -> Array:
    """Counts of bytes, from counts of pairs of bytes: of whole rows of 256."""
    table = pairs.reshape(-1, 256)
    found: Array = table.sum(axis=0)
    found[: len(table)] += table.sum(axis=1)
    return found

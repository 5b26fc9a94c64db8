"""How the elements of two tensors differ: sums and counts over their blocks, in step.

Products of float32 numbers are summed in rows in float32 and beyond that in float64, which is right
to about 1e-6; where squares leave the range of float32, and for all other types, everything is
float64. Pairs with NaN or infinity stay out of the sums and are counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.encoding import decoded
from liontool.measure.products import dot

if TYPE_CHECKING:
    from liontool.checkpoint.encoding import Array

Buffer = bytes | memoryview

_PARALLEL = 0.9
_ROUNDING = 4e-6  # rows of thousands of equal numbers are off by 1e-6
_SAFE = 1e-30
"""A sum of squares above this has lost nothing to the smallest numbers of float32."""


@dataclass(frozen=True)
class Tolerance:
    """Up to where elements count as the same: ``|a - b| <= atol + rtol * |b|``, numpy's."""

    atol: float = 0.0
    rtol: float = 0.0

    def __post_init__(self) -> None:
        for name, value in (("atol", self.atol), ("rtol", self.rtol)):
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number of 0 or more, got {value}")

    def __bool__(self) -> bool:
        return self.atol > 0 or self.rtol > 0


@dataclass(frozen=True)
class Sums:
    """What pairs of tensors add up to; pairs with a non-finite element are left out.

    Attributes:
        difference: Sum of (a - b)^2.
        a: Sum of a^2.
        b: Sum of b^2.
        product: Sum of a * b.
        agreeing: How many pairs have the same sign, zeros left out.
        judged: How many pairs have at least one element that is not zero.
    """

    difference: float = 0.0
    a: float = 0.0
    b: float = 0.0
    product: float = 0.0
    agreeing: int = 0
    judged: int = 0

    def __add__(self, other: Sums) -> Sums:
        return Sums(
            self.difference + other.difference,
            self.a + other.a,
            self.b + other.b,
            self.product + other.product,
            self.agreeing + other.agreeing,
            self.judged + other.judged,
        )

    @property
    def relative_l2(self) -> float | None:
        """``|a - b| / |a|``; infinite where A is all zeros; None where it leaves the range."""
        if self.difference == 0:
            return 0.0
        return _finite(math.sqrt(self.difference) / math.sqrt(self.a)) if self.a else math.inf

    @property
    def cosine(self) -> float | None:
        """``a * b / (|a| |b|)``; None where a side is all zeros."""
        a, b = math.sqrt(self.a), math.sqrt(self.b)
        if not a * b:
            return None
        found = self.product / (a * b)
        if found > _PARALLEL:  # of what is missing from 1 the product alone would lose all digits
            missing = self.difference - (a - b) ** 2
            found = 1 - missing / (2 * a * b) if missing > _ROUNDING * self.difference else 1.0
        return max(-1.0, min(1.0, found)) if math.isfinite(found) else None

    @property
    def sign_agreement(self) -> float | None:
        """Share of equal signs among the pairs that are not both zero."""
        return self.agreeing / self.judged if self.judged else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


@dataclass(frozen=True)
class Values:
    """How the elements of two tensors of one shape differ.

    Attributes:
        elements: Of each.
        identical: Whether all bits are the same.
        differing: Elements that are not the same within the tolerance, non-finite ones included.
        largest: The largest ``|a - b|`` of finite elements; None where all of them are equal.
        index: Where it is.
        a: A's element there.
        b: B's element there.
        nonfinite_a: How many of A are NaN or infinite, as far as they were counted: those of
            blocks that are the same on both sides are not.
        nonfinite_b: The same of B.
        nonfinite_differing: Pairs with such an element whose bits are not the same.
        sums: What the distances are computed of; None for identical tensors.
    """

    elements: int
    identical: bool
    differing: int = 0
    largest: float | None = None
    index: tuple[int, ...] | None = None
    a: Any = None
    b: Any = None
    nonfinite_a: int = 0
    nonfinite_b: int = 0
    nonfinite_differing: int = 0
    sums: Sums | None = None


class Comparison:
    """The sums and counts of two tensors so far; takes in their blocks in order.

    Args:
        dtypes: Of A and B.
        tolerance: What counts as the same.
        signs: Whether to count equal signs.
        whole: Whether blocks with the same bytes are summed too. Most often there are none, or
            nothing else.
    """

    def __init__(
        self, dtypes: tuple[str, str], tolerance: Tolerance, signs: bool, whole: bool = False
    ) -> None:
        self._dtypes, self._tolerance, self._signs, self._whole = dtypes, tolerance, signs, whole
        self._elements = 0
        self._width = 2 if any(dtype.startswith("complex") for dtype in dtypes) else 1
        self._largest: tuple[float, int, Any, Any] | None = None
        self._nonfinite = [0, 0, 0]
        self._sums = Sums()
        self._identical = dtypes[0] == dtypes[1]
        self._passed_over = False
        self.differing = 0

    @property
    def is_partial(self) -> bool:
        """Whether the sums lack blocks, and matter: make another one with `whole`."""
        return self._passed_over and not self._identical

    def add(self, *blocks: Buffer) -> None:
        """Take in a block of each tensor, as many elements of one as of the other."""
        import numpy as np

        a, b = (decoded(block, dtype) for block, dtype in zip(blocks, self._dtypes, strict=True))
        count = a.size
        if self._width == 2:
            a, b = _halves(a), _halves(b)
        if self._dtypes[0] == self._dtypes[1] and _same_bytes(*blocks):
            self._add_equal(a)
        else:
            self._identical = False
            if not (a.dtype == b.dtype == np.float32 and self._add_single(a, b)):
                self._add_double(a, b)
        self._elements += count

    def add_still(self, elements: int) -> None:
        """Take in zeros on both sides, that nobody read."""
        self._elements += elements

    def join(self, other: Comparison) -> None:
        """Take in what another one found in the elements that follow."""
        if other._largest is not None and other._largest[0] > self._size:
            size, place, a, b = other._largest
            self._largest = size, place + self._elements * self._width, a, b
        self._nonfinite = [x + y for x, y in zip(self._nonfinite, other._nonfinite, strict=True)]
        self._sums += other._sums
        self._identical &= other._identical
        self._passed_over |= other._passed_over
        self._elements += other._elements
        self.differing += other.differing

    @property
    def _size(self) -> float:
        return self._largest[0] if self._largest else 0.0

    def _add_equal(self, block: Array) -> None:
        """Elements that are the same on both sides, bit for bit."""
        import numpy as np

        if not self._whole:
            self._passed_over = True
            return
        square = dot(block, block) if block.dtype == np.float32 else math.inf
        if not _SAFE < square < math.inf:
            block = block.astype(np.float64)
            finite = np.isfinite(block)
            bad = block.size - int(np.count_nonzero(finite))
            self._nonfinite = [n + bad for n in self._nonfinite[:2]] + self._nonfinite[2:]
            block = block[finite] if bad else block
            square = dot(block, block)
        signs = int(np.count_nonzero(block)) if self._signs else 0
        self._sums += Sums(0.0, square, square, square, signs, signs)

    def _add_single(self, a: Array, b: Array) -> bool:
        """Float32 within its range; False where it is not, and then nothing was added."""
        import numpy as np

        difference = np.subtract(a, b)
        products = (difference, difference), (a, a), (b, b), (a, b)
        sums = [dot(*pair) for pair in products]
        if not all(_SAFE < value < math.inf for value in sums[:3]):
            return False
        self._count(sums, difference, a, b)
        return True

    def _add_double(self, a: Array, b: Array) -> None:
        """Any type, with the elements that are not finite left out of the sums."""
        import numpy as np

        wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(wide_a) & np.isfinite(wide_b)
        where = None
        if not finite.all():
            self._count_nonfinite(wide_a, wide_b, finite)
            where = np.flatnonzero(finite)
            a, b, wide_a, wide_b = a[where], b[where], wide_a[where], wide_b[where]
        distance = _distance(a, b, wide_a, wide_b)
        products = (distance, distance), (wide_a, wide_a), (wide_b, wide_b), (wide_a, wide_b)
        self._count([dot(*pair) for pair in products], distance, a, b, where)

    def _count(
        self, sums: list[float], distance: Array, a: Array, b: Array, where: Any = None
    ) -> None:
        import numpy as np

        signs = _signs(a, b) if self._signs else (0, 0)
        self._sums += Sums(sums[0], sums[1], sums[2], sums[3], *signs)
        self._note_largest(distance, a, b, where)
        if self._tolerance:
            wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
            allowed = self._tolerance.atol + self._tolerance.rtol * np.abs(wide_b)
            self.differing += int(np.count_nonzero(np.abs(wide_a - wide_b) > allowed))
        else:
            self.differing += int(np.count_nonzero(np.not_equal(a, b)))

    def _count_nonfinite(self, a: Array, b: Array, finite: Array) -> None:
        """Those that are not finite on a side, and those of them whose bits are not the same."""
        import numpy as np

        same = a.view(np.uint64) == b.view(np.uint64)
        differing = int(np.count_nonzero(~finite & ~same))
        self._nonfinite[0] += int(np.count_nonzero(~np.isfinite(a)))
        self._nonfinite[1] += int(np.count_nonzero(~np.isfinite(b)))
        self._nonfinite[2] += differing
        self.differing += differing

    def _note_largest(self, distance: Array, a: Array, b: Array, where: Any) -> None:
        """Keep the largest distance so far, its place and both elements there."""
        if not distance.size:
            return
        low, high = float(distance.min()), float(distance.max())
        size = max(high, -low)
        if size > self._size:
            at = int(distance.argmax() if high == size else distance.argmin())
            place = at if where is None else int(where[at])
            place += self._elements * self._width
            self._largest = size, place, a[at].item(), b[at].item()

    def values(self, shape: tuple[int, ...]) -> Values:
        """The result."""
        elements = math.prod(shape)
        if self._identical:
            return Values(elements, True)
        size, place, a, b = self._largest or (None, None, None, None)
        return Values(
            elements=elements,
            identical=False,
            differing=self.differing,
            largest=size,
            index=None if place is None else _index(place // self._width, shape),
            a=a,
            b=b,
            nonfinite_a=self._nonfinite[0],
            nonfinite_b=self._nonfinite[1],
            nonfinite_differing=self._nonfinite[2],
            sums=self._sums,
        )


def _same_bytes(a: Buffer, b: Buffer) -> bool:
    import numpy as np

    word = "u8" if len(a) % 8 == 0 else "u1"
    return not np.not_equal(np.frombuffer(a, word), np.frombuffer(b, word)).any()


def _signs(a: Array, b: Array) -> tuple[int, int]:
    """How many pairs have the same sign, and how many are not both zero."""
    import numpy as np

    more_a, more_b, less_a, less_b = a > 0, b > 0, a < 0, b < 0
    same = np.count_nonzero(more_a & more_b) + np.count_nonzero(less_a & less_b)
    return int(same), int(np.count_nonzero(more_a | more_b | less_a | less_b))


def _halves(array: Array) -> Array:
    """Real and imaginary parts side by side."""
    import numpy as np

    if array.dtype.kind != "c":
        array = array.astype(np.complex128)
    halves: Array = array.view(array.real.dtype)
    return halves


def _distance(a: Array, b: Array, wide_a: Array, wide_b: Array) -> Array:
    """a - b, or ``|a - b|`` of integers, which float64 could not tell apart beyond 2^53."""
    import numpy as np

    exact = a.dtype.kind in "iub" and b.dtype.kind in "iub" and np.result_type(a, b).kind != "f"
    if not exact:
        difference: Array = np.subtract(wide_a, wide_b)
        return difference
    high, low = np.maximum(a, b).astype(np.uint64), np.minimum(a, b).astype(np.uint64)
    return (high - low).astype(np.float64)


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The index of the element at a position in row-major order."""
    found = []
    for size in reversed(shape):
        place, at = divmod(place, size)
        found.append(at)
    return tuple(reversed(found))

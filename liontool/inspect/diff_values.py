"""How the elements of two tensors differ: both are read block by block, in step.

Blocks with the same bytes are not looked into. Of the others, float32 products are summed in rows
of 256 in float32 and beyond that in float64, which is right to about 1e-7; where a square would
leave the range of float32, and for all other types, everything is float64. Pairs with NaN or
infinity stay out of the sums and are counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from liontool.checkpoint import encoding
from liontool.checkpoint.document import ITEM_SIZES, TensorRef
from liontool.checkpoint.values import byte_blocks

if TYPE_CHECKING:
    from liontool.checkpoint.encoding import Array

Buffer = bytes | memoryview

STEP = 1 << 16
"""Elements that are compared at a time: their blocks and what is made of them fit into a cache."""

_ROW = 256
_SAFE = 1e-30
"""A sum of squares above this has lost nothing to the smallest numbers of float32."""


@dataclass(frozen=True)
class Tolerance:
    """Up to where elements count as the same: |a - b| <= atol + rtol * |b|, as numpy has it."""

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
        """|a - b| / |a|; infinite where A is all zeros; None where it leaves the range."""
        if self.difference == 0:
            return 0.0
        return _finite(math.sqrt(self.difference) / math.sqrt(self.a)) if self.a else math.inf

    @property
    def cosine(self) -> float | None:
        """a * b / (|a| |b|); None where a side is all zeros."""
        size = math.sqrt(self.a) * math.sqrt(self.b)
        found = _finite(self.product / size) if size else None
        return None if found is None else max(-1.0, min(1.0, found))

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
        largest: The largest |a - b| of finite elements; None where all of them are equal.
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


def compare(
    a: TensorRef,
    b: TensorRef,
    tolerance: Tolerance,
    *,
    signs: bool = False,
    first_only: bool = False,
    advance: Callable[[int], None] | None = None,
) -> Values:
    """Compare two tensors of one shape.

    Args:
        a: The one before.
        b: The one after; may have another dtype.
        tolerance: What counts as the same.
        signs: Whether to count equal signs.
        first_only: Stop where the first difference is found; the counts are then incomplete.
        advance: Called with the bytes of each pair of blocks.
    """
    import numpy as np

    found: _Comparison | None = None
    equal = 0
    with np.errstate(all="ignore"):
        for raw_a, raw_b in _in_step(a, b):
            if a.dtype == b.dtype and _same_bytes(raw_a, raw_b):
                if found is None:
                    equal += len(raw_a)
                else:
                    found.add_equal(encoding.decoded(raw_a, a.dtype))
            else:
                found = found or _Comparison(tolerance, signs, equal // ITEM_SIZES[a.dtype])
                found.add(encoding.decoded(raw_a, a.dtype), encoding.decoded(raw_b, b.dtype))
            if advance is not None:
                advance(len(raw_a) + len(raw_b))
            if first_only and found is not None and found.differing:
                break
        if found is None:
            return Values(a.numel, a.dtype == b.dtype)
        if not first_only:
            _add_beginning(found, a, equal)
    return found.values(a.shape)


def _add_beginning(found: _Comparison, a: TensorRef, length: int) -> None:
    """Count the bytes before the first difference, which were passed over."""
    for block in byte_blocks(a, STEP * ITEM_SIZES[a.dtype]):
        if length <= 0:
            return
        found.add_equal(encoding.decoded(memoryview(block)[:length], a.dtype), beginning=True)
        length -= len(block)


def _in_step(a: TensorRef, b: TensorRef) -> Iterator[tuple[memoryview, memoryview]]:
    """Blocks with as many elements of each, however each side cuts them."""
    sizes = ITEM_SIZES[a.dtype], ITEM_SIZES[b.dtype]
    readers = [byte_blocks(one, STEP * ITEM_SIZES[one.dtype]) for one in (a, b)]
    rest = [memoryview(b""), memoryview(b"")]
    while True:
        for side in (0, 1):
            while not rest[side]:
                block = next(readers[side], None)
                if block is None:
                    return
                rest[side] = memoryview(block)
        count = min(len(part) // size for part, size in zip(rest, sizes, strict=True))
        yield rest[0][: count * sizes[0]], rest[1][: count * sizes[1]]
        rest = [part[count * size :] for part, size in zip(rest, sizes, strict=True)]


def _same_bytes(a: memoryview, b: memoryview) -> bool:
    import numpy as np

    word = "u8" if len(a) % 8 == 0 else "u1"
    return not np.not_equal(np.frombuffer(a, word), np.frombuffer(b, word)).any()


class _Comparison:
    """The sums and counts of two tensors so far.

    Args:
        tolerance: What counts as the same.
        signs: Whether to count equal signs.
        position: Index of the element that is compared first.
    """

    def __init__(self, tolerance: Tolerance, signs: bool, position: int) -> None:
        self._tolerance, self._signs = tolerance, signs
        self._position = position
        self._width = 1
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self._agreeing = self._judged = 0
        self._largest: tuple[float, int, Any, Any] | None = None
        self._nonfinite = [0, 0, 0]
        self.differing = 0

    def add_equal(self, block: Array, beginning: bool = False) -> None:
        """Elements that are the same on both sides, bit for bit."""
        import numpy as np

        if block.dtype.kind == "c":
            block = block.view(block.real.dtype)
        square = _dot(block, block)
        if not _SAFE < square < math.inf:
            block = block.astype(np.float64)
            finite = np.isfinite(block)
            bad = block.size - int(np.count_nonzero(finite))
            self._nonfinite[0] += bad
            self._nonfinite[1] += bad
            block = block[finite] if bad else block
            square = _dot(block, block)
        self._sums = [old + new for old, new in zip(self._sums, (0, *[square] * 3), strict=True)]
        if self._signs:
            self._count_signs(block, block)
        if not beginning:
            self._position += block.size

    def add(self, a: Array, b: Array) -> None:
        """Elements that are not all the same."""
        import numpy as np

        if "c" in (a.dtype.kind, b.dtype.kind):
            a, b = _halves(a), _halves(b)
            self._width = 2
        if a.dtype == b.dtype == np.float32:
            if not self._add_single(a, b):
                self._add_double(a, b)
        else:
            self._add_double(a, b)
        self._position += a.size

    def _add_single(self, a: Array, b: Array) -> bool:
        """Float32 within its range; False where it is not, and then nothing was added."""
        import numpy as np

        difference = np.subtract(a, b)
        sums = [_dot(difference, difference), _dot(a, a), _dot(b, b), _dot(a, b)]
        if not all(_SAFE < value < math.inf for value in sums[:3]):
            return False
        self._note_largest(difference, a, b)
        self._count(sums, a, b)
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
        sums = [_dot(distance, distance), *(_dot(*p) for p in _pairs(wide_a, wide_b))]
        self._note_largest(distance, a, b, where)
        self._count(sums, a, b)

    def _count(self, sums: list[float], a: Array, b: Array) -> None:
        import numpy as np

        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)]
        if self._tolerance:
            wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
            allowed = self._tolerance.atol + self._tolerance.rtol * np.abs(wide_b)
            self.differing += int(np.count_nonzero(np.abs(wide_a - wide_b) > allowed))
        else:
            self.differing += int(np.count_nonzero(np.not_equal(a, b)))
        if self._signs:
            self._count_signs(a, b)

    def _count_signs(self, a: Array, b: Array) -> None:
        import numpy as np

        more_a, more_b, less_a, less_b = a > 0, b > 0, a < 0, b < 0
        same = np.count_nonzero(more_a & more_b) + np.count_nonzero(less_a & less_b)
        self._agreeing += int(same)
        self._judged += int(np.count_nonzero(more_a | more_b | less_a | less_b))

    def _count_nonfinite(self, a: Array, b: Array, finite: Array) -> None:
        """Those that are not finite on a side, and those of them whose bits are not the same."""
        import numpy as np

        same = a.view(np.uint64) == b.view(np.uint64)
        differing = int(np.count_nonzero(~finite & ~same))
        self._nonfinite[0] += int(np.count_nonzero(~np.isfinite(a)))
        self._nonfinite[1] += int(np.count_nonzero(~np.isfinite(b)))
        self._nonfinite[2] += differing
        self.differing += differing

    def _note_largest(self, distance: Array, a: Array, b: Array, where: Any = None) -> None:
        """Keep the largest distance so far, its place and both elements there."""
        if not distance.size:
            return
        low, high = distance.min(), distance.max()
        size = max(float(high), -float(low))
        if size > (self._largest[0] if self._largest else 0.0):
            at = int(distance.argmax() if float(high) == size else distance.argmin())
            place = at if where is None else int(where[at])
            self._largest = size, self._position + place, a[at].item(), b[at].item()

    def values(self, shape: tuple[int, ...]) -> Values:
        """The result."""
        size, place, a, b = self._largest or (None, None, None, None)
        difference, square_a, square_b, product = self._sums
        return Values(
            elements=math.prod(shape),
            identical=False,
            differing=self.differing,
            largest=size,
            index=None if place is None else _index(place // self._width, shape),
            a=a,
            b=b,
            nonfinite_a=self._nonfinite[0],
            nonfinite_b=self._nonfinite[1],
            nonfinite_differing=self._nonfinite[2],
            sums=Sums(difference, square_a, square_b, product, self._agreeing, self._judged),
        )


def _pairs(a: Array, b: Array) -> tuple[tuple[Array, Array], ...]:
    return (a, a), (b, b), (a, b)


def _dot(a: Array, b: Array) -> float:
    """The sum of products, rows in the precision of the arrays, all rows in float64."""
    import numpy as np

    if a.dtype != np.float32:
        return float(np.dot(a.astype(np.float64, copy=False), b.astype(np.float64, copy=False)))
    whole = a.size // _ROW * _ROW
    rows = np.einsum("ij,ij->i", a[:whole].reshape(-1, _ROW), b[:whole].reshape(-1, _ROW))
    rest = np.dot(a[whole:].astype(np.float64), b[whole:].astype(np.float64))
    return float(rows.sum(dtype=np.float64) + rest)


def _halves(array: Array) -> Array:
    """Real and imaginary parts side by side."""
    import numpy as np

    if array.dtype.kind != "c":
        array = array.astype(np.complex128)
    halves: Array = array.view(array.real.dtype)
    return halves


def _distance(a: Array, b: Array, wide_a: Array, wide_b: Array) -> Array:
    """a - b, or |a - b| of integers, which float64 could not tell apart beyond 2^53."""
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

"""Tensors of two checkpoints side by side: what became of each, and their values."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from liontool.checkpoint.document import Stored, TensorRef
from liontool.checkpoint.values import is_float, span_of
from liontool.checkpoint.writing import counter
from liontool.inspect.diff_values import Comparison, Tolerance, Values
from liontool.inspect.listing import STATE, Item
from liontool.measure.passes import Job, passed

IDENTICAL, EQUAL, CLOSE, DIFFERENT = "identical", "equal", "close", "different"
RESHAPED, UNREAD = "reshaped", "not compared"

MOMENTA = frozenset({"exp_avg", "momentum_buffer", "state1"})
"""State whose sign is what Lion makes its step of."""

Progress = Callable[[int, int], None]

_Pairs = Mapping[int, tuple[Item, Item]]


@dataclass(frozen=True)
class TensorDifference:
    """One tensor that both sides have.

    Attributes:
        name: Its name; of state that was matched by position, that of the side that knows names.
        label_a: Where it lies in A.
        label_b: Where it lies in B.
        role: "weight", "state" or "other".
        field: Which state it is: "exp_avg".
        dtype_a: Its element type in A.
        dtype_b: Its element type in B.
        shape_a: Its shape in A.
        shape_b: Its shape in B.
        verdict: "identical" bit for bit, "equal" in value, "close" within the tolerance,
            "different", "reshaped", or "not compared".
        values: How its elements differ, where they were compared.
    """

    name: str
    label_a: str
    label_b: str
    role: str
    field: str | None
    dtype_a: str
    dtype_b: str
    shape_a: tuple[int, ...]
    shape_b: tuple[int, ...]
    verdict: str
    values: Values | None = None

    @property
    def is_recast(self) -> bool:
        """Whether the element type differs."""
        return self.dtype_a != self.dtype_b

    @property
    def differs(self) -> bool:
        """Whether the elements do, beyond the tolerance; a new element type alone does not."""
        return self.verdict == DIFFERENT


def compared(
    pairs: Sequence[tuple[Item, Item]],
    tolerance: Tolerance,
    *,
    read: bool = True,
    first_only: bool = False,
    progress: Progress | None = None,
) -> tuple[TensorDifference, ...]:
    """Compare tensors, all cores at a time.

    Args:
        pairs: The tensors of A and B.
        tolerance: What counts as the same.
        read: Whether to look at values at all.
        first_only: Stop at the first that differs; what was not looked at is "not compared".
        progress: Called with the bytes read so far, and the bytes of all.
    """
    known = _known(pairs)
    if read:
        todo = {n: pair for n, pair in enumerate(pairs) if n not in known and _is_readable(pair)}
        total = sum(item.tensor.nbytes for pair in todo.values() for item in pair)
        passing = _Passing(tolerance, counter(progress, total))
        known |= passing.first(todo) if first_only else passing.all(todo)
    return tuple(_difference(a, b, known.get(n)) for n, (a, b) in enumerate(pairs))


class _Passing:
    """Reads pairs of tensors; those that differ in some blocks alone are read a second time.

    Args:
        tolerance: What counts as the same.
        advance: Called with the bytes that were dealt with.
    """

    def __init__(self, tolerance: Tolerance, advance: Callable[[int], None] | None) -> None:
        self._tolerance = tolerance
        self._advance = advance or (lambda count: None)

    def all(self, todo: _Pairs) -> dict[int, Values]:
        """The values of all pairs."""
        found = dict(self._results(todo, self._advance))
        again = {n: todo[n] for n, one in found.items() if one.is_partial}
        found |= self._results(again, lambda count: None, whole=True)
        return {n: one.values(todo[n][0].tensor.shape) for n, one in found.items()}

    def first(self, todo: _Pairs) -> dict[int, Values]:
        """The values of pairs up to the first that differs."""
        known: dict[int, Values] = {}
        for n, one in self._results(todo, self._advance):
            known[n] = one.values(todo[n][0].tensor.shape)
            if one.differing:
                break
        return known

    def _results(
        self, todo: _Pairs, advance: Callable[[int], None], whole: bool = False
    ) -> Iterator[tuple[int, Comparison]]:
        jobs = (
            Job((a.tensor, b.tensor), partial(self._sums, a, b, whole)) for a, b in todo.values()
        )
        with closing(passed(jobs, advance)) as results:  # type: ignore[type-var]
            yield from zip(todo, results, strict=False)

    def _sums(self, a: Item, b: Item, whole: bool) -> Comparison:
        dtypes = a.tensor.dtype, b.tensor.dtype
        signs = a.field in MOMENTA and all(map(is_float, dtypes))
        return Comparison(dtypes, self._tolerance, signs, whole)


def _is_readable(pair: tuple[Item, Item]) -> bool:
    return pair[0].tensor.shape == pair[1].tensor.shape


def _known(pairs: Sequence[tuple[Item, Item]]) -> dict[int, Values]:
    """The values of those that are the same bytes of one file, whatever its names."""
    files: dict[Path, tuple[int, int]] = {}
    return {
        n: Values(a.tensor.numel, True)
        for n, (a, b) in enumerate(pairs)
        if _bytes(a.tensor, files) == _bytes(b.tensor, files) is not None
    }


def _bytes(tensor: TensorRef, files: dict[Path, tuple[int, int]]) -> object:
    """What tells where the elements lie and what they mean; None where they are computed."""
    source = tensor.source
    if not isinstance(source, Stored):
        return None
    span = span_of(tensor)
    if span.file not in files:
        status = os.stat(span.file)
        files[span.file] = status.st_dev, status.st_ino
    look = tensor.dtype, tensor.shape, source.stride, source.storage.byteorder
    return files[span.file], span.offset, look


def _difference(a: Item, b: Item, values: Values | None) -> TensorDifference:
    named = b if a.role == STATE and (a.parameter or "").isdecimal() else a
    return TensorDifference(
        name=named.name,
        label_a=a.label,
        label_b=b.label,
        role=a.role,
        field=a.field,
        dtype_a=a.tensor.dtype,
        dtype_b=b.tensor.dtype,
        shape_a=a.tensor.shape,
        shape_b=b.tensor.shape,
        verdict=_verdict(values) if _is_readable((a, b)) else RESHAPED,
        values=values,
    )


def _verdict(values: Values | None) -> str:
    if values is None:
        return UNREAD
    if values.identical:
        return IDENTICAL
    if values.differing:
        return DIFFERENT
    return CLOSE if values.largest else EQUAL

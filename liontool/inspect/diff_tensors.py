"""Tensors of two checkpoints side by side: what became of each, and their values."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Lock
from typing import Any

from liontool.checkpoint.document import Stored, TensorRef
from liontool.checkpoint.values import is_float, span_of
from liontool.inspect.diff_values import Tolerance, Values, compare
from liontool.inspect.listing import STATE, Item

IDENTICAL, EQUAL, CLOSE, DIFFERENT = "identical", "equal", "close", "different"
RESHAPED, UNREAD = "reshaped", "not compared"

MOMENTA = frozenset({"exp_avg", "momentum_buffer", "state1"})
"""State whose sign is what Lion makes its step of."""

Progress = Callable[[int, int], None]

# Comparing takes longer than reading, and numpy lets go of the interpreter while it computes.
_WORKERS = min(4, os.cpu_count() or 1)
_SHARE = 1 << 22
_OVERHEAD = 1 << 14


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
    """Compare tensors in their order, a few at a time.

    Args:
        pairs: The tensors of A and B.
        tolerance: What counts as the same.
        read: Whether to look at values at all.
        first_only: Stop at the first that differs; what was not looked at is left out.
        progress: Called with the bytes read so far, and the bytes of all.
    """
    total = sum(item.tensor.nbytes for pair in pairs for item in pair) if read else 0
    job = _Job(tolerance, read, first_only, progress, total)
    if not read:
        return tuple(map(job, pairs))
    with ThreadPoolExecutor(_WORKERS) as pool:
        try:
            return tuple(_until(_results(pool, job, pairs), first_only))
        finally:
            job.stop.set()
            pool.shutdown(cancel_futures=True)


def _until(found: Iterator[TensorDifference], first_only: bool) -> Iterator[TensorDifference]:
    """All of them, or those up to the first that differs."""
    for one in found:
        yield one
        if first_only and one.differs:
            return


def _results(pool: Executor, job: _Job, pairs: Sequence[tuple[Item, Item]]) -> Iterator[Any]:
    """In order; only a few shares of the work are handed out ahead."""
    ahead: deque[Future[list[TensorDifference]]] = deque()
    for share in _shares(pairs):
        ahead.append(pool.submit(lambda share: list(map(job, share)), share))
        if len(ahead) > 4 * _WORKERS:
            yield from ahead.popleft().result()
    while ahead:
        yield from ahead.popleft().result()


def _shares(pairs: Sequence[tuple[Item, Item]]) -> Iterator[list[tuple[Item, Item]]]:
    """Pairs to be compared in one go: one large tensor, or many small ones."""
    share: list[tuple[Item, Item]] = []
    size = 0
    for pair in pairs:
        share.append(pair)
        size += pair[0].tensor.nbytes + _OVERHEAD
        if size >= _SHARE:
            yield share
            share, size = [], 0
    if share:
        yield share


class _Job:
    """Compares one pair; called from several threads."""

    def __init__(
        self,
        tolerance: Tolerance,
        read: bool,
        first_only: bool,
        progress: Progress | None,
        total: int,
    ) -> None:
        self._tolerance, self._read, self._first_only = tolerance, read, first_only
        self._progress, self._total, self._done = progress, total, 0
        self._lock = Lock()
        self._files: dict[Path, tuple[int, int]] = {}
        self.stop = Event()

    def __call__(self, pair: tuple[Item, Item]) -> TensorDifference:
        a, b = pair
        verdict, values = self._values(a, b)
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
            verdict=verdict,
            values=values,
        )

    def _values(self, a: Item, b: Item) -> tuple[str, Values | None]:
        old, new = a.tensor, b.tensor
        if old.shape != new.shape:
            return RESHAPED, None
        if self._is_one(old, new):
            self._advance(old.nbytes + new.nbytes)
            return IDENTICAL, Values(old.numel, True)
        if not self._read:
            return UNREAD, None
        values = compare(
            old,
            new,
            self._tolerance,
            signs=a.field in MOMENTA and is_float(old.dtype) and is_float(new.dtype),
            first_only=self._first_only,
            advance=self._advance,
        )
        return _verdict(values), values

    def _advance(self, count: int) -> None:
        if self.stop.is_set():
            raise _Stopped
        if self._progress is not None:
            with self._lock:
                self._done += count
                self._progress(self._done, self._total)

    def _is_one(self, a: TensorRef, b: TensorRef) -> bool:
        """Whether both are the same bytes of one file, whatever its names."""
        one, other = a.source, b.source
        if not isinstance(one, Stored) or not isinstance(other, Stored):
            return False
        if (a.dtype, one.stride, one.storage.byteorder) != (
            b.dtype, other.stride, other.storage.byteorder,
        ):  # fmt: skip
            return False
        spans = span_of(a), span_of(b)
        if spans[0].offset != spans[1].offset:
            return False
        return self._file(spans[0].file) == self._file(spans[1].file)

    def _file(self, path: Path) -> tuple[int, int]:
        if path not in self._files:
            status = path.stat()
            self._files[path] = status.st_dev, status.st_ino
        return self._files[path]


class _Stopped(Exception):
    """Nobody waits for the result any more."""


def _verdict(values: Values) -> str:
    if values.identical:
        return IDENTICAL
    if values.differing:
        return DIFFERENT
    return CLOSE if values.largest else EQUAL

"""One pass over the bytes of many tensors, with all cores, in blocks; holes are not read.

Each tensor, or set of tensors of one shape, is a job. Jobs are cut into parts of a fixed size whose
sums are joined in order: the result is the same with every number of threads.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from liontool.checkpoint.document import ITEM_SIZES, Span, Stored, TensorRef
from liontool.checkpoint.reading import extents, open_file, read_into
from liontool.checkpoint.values import byte_blocks, span_of
from liontool.measure.scratch import scratch

if TYPE_CHECKING:
    from concurrent.futures import Future

BLOCK = 3 << 15
"""Elements of each tensor in a block: what is made of them stays in a core's cache."""

_PART = 1 << 22
_MOST_THREADS = 8
_AHEAD = 2  # parts for each thread that may wait to be joined
_MOST_OPEN = 8

Block = bytes | bytearray | memoryview


class Sums(Protocol):
    """What takes in the blocks of a job, little-endian, one of each tensor."""

    def add(self, *blocks: Any) -> None:
        """Take in blocks of the same elements."""

    def add_still(self, elements: int) -> None:
        """Take in elements of zero bytes."""

    def join(self, other: Any) -> None:
        """Take in what another one of the same job has taken in."""


@dataclass(frozen=True, eq=False)
class Job:
    """Tensors to be read side by side.

    Attributes:
        tensors: One, or several of the same shape.
        sums: Makes empty sums.
    """

    tensors: tuple[TensorRef, ...]
    sums: Callable[[], Sums]


def passed(jobs: Iterable[Job], progress: Callable[[int], None]) -> Iterator[Any]:
    """The sums of each job, in order.

    Args:
        jobs: What to read.
        progress: Called, in this thread, with the number of bytes that were dealt with.
    """
    from concurrent.futures import ThreadPoolExecutor

    threads = min(_MOST_THREADS, _cores())
    waiting: deque[tuple[Job, Sums, _Work | None]] = deque()
    with closing(_Files()) as files, ThreadPoolExecutor(threads) as pool:
        try:
            for job in jobs:
                sums = job.sums()
                for start, stop, is_hole in _parts(job, files):
                    future = None if is_hole else pool.submit(_read, job, start, stop, files)
                    waiting.append((job, sums, _Work(future, stop - start)))
                    while len(waiting) > threads * _AHEAD:
                        yield from _settled(*waiting.popleft(), progress)
                waiting.append((job, sums, None))
            while waiting:
                yield from _settled(*waiting.popleft(), progress)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Work:
    """A part of a job: being read, or nothing but a hole."""

    future: Future[Sums] | None
    elements: int


def _settled(
    job: Job, sums: Sums, work: _Work | None, progress: Callable[[int], None]
) -> Iterator[Sums]:
    """Join a part; after the last one of a job there are its sums."""
    if work is None:
        yield sums
        return
    if work.future is None:
        sums.add_still(work.elements)
    else:
        sums.join(work.future.result())
    progress(work.elements * sum(ITEM_SIZES[tensor.dtype] for tensor in job.tensors))


def _read(job: Job, start: int, stop: int, files: _Files) -> Sums:
    """The sums of a part; runs in a thread of its own."""
    import numpy as np

    sums = job.sums()
    run = _is_run(job.tensors)
    read = (
        _run_blocks(tensor, start, stop, files, f"block {place}") if run else _even(tensor)
        for place, tensor in enumerate(job.tensors)
    )
    with np.errstate(all="ignore"):  # what is not finite is counted
        for blocks in zip(*read, strict=True):
            sums.add(*blocks)
    return sums


def _run_blocks(
    tensor: TensorRef, start: int, stop: int, files: _Files, room: str
) -> Iterator[memoryview]:
    item = ITEM_SIZES[tensor.dtype]
    whole = span_of(tensor)
    buffer = scratch(room, min(BLOCK, stop - start) * item, "u1").data
    for first in range(start, stop, BLOCK):
        length = min(BLOCK, stop - first) * item
        block = buffer[:length]
        span = Span(whole.file, whole.offset + first * item, length)
        read_into(files.descriptor(whole.file), span, block)
        yield block


def _even(tensor: TensorRef) -> Iterator[bytes]:
    """All elements in order, in blocks of the same number: views of files come in any."""
    size, held = BLOCK * ITEM_SIZES[tensor.dtype], bytearray()
    for block in byte_blocks(tensor):
        held += block
        while len(held) >= size:
            yield bytes(held[:size])
            del held[:size]
    if held:
        yield bytes(held)


def _parts(job: Job, files: _Files) -> Iterator[tuple[int, int, bool]]:
    """Start and stop, in elements, of the parts of a job, and whether nothing is in them."""
    count = job.tensors[0].numel
    if not _is_run(job.tensors):
        if count:
            yield 0, count, False
        return
    position = 0
    for start, stop in _united(job.tensors, files):
        if position < start:
            yield position, start, True
        for first in range(start, stop, _PART):
            yield first, min(stop, first + _PART), False
        position = stop
    if position < count:
        yield position, count, True


def _united(tensors: Sequence[TensorRef], files: _Files) -> list[list[int]]:
    """Where any of the tensors has data, in elements, sorted and without overlap."""
    found: list[list[int]] = []
    for start, stop in sorted(pair for tensor in tensors for pair in _data(tensor, files)):
        if found and start <= found[-1][1]:
            found[-1][1] = max(found[-1][1], stop)
        else:
            found.append([start, stop])
    return found


def _data(tensor: TensorRef, files: _Files) -> Iterator[tuple[int, int]]:
    """The elements that touch data."""
    span, item = span_of(tensor), ITEM_SIZES[tensor.dtype]
    if span.length:
        for start, stop in extents(files.descriptor(span.file), span):
            yield (start - span.offset) // item, -((span.offset - stop) // item)


def _is_run(tensors: Sequence[TensorRef]) -> bool:
    """Whether the elements of each fill a range of a file, in the same order in all of them."""
    strides = {t.source.stride for t in tensors if isinstance(t.source, Stored)}
    same = len(strides) == 1 or all(tensor.is_contiguous for tensor in tensors)
    return same and all(map(_fills_a_range, tensors))


def _fills_a_range(tensor: TensorRef) -> bool:
    source, expected = tensor.source, 1
    if not isinstance(source, Stored):
        return False
    if source.storage.byteorder != "little" and ITEM_SIZES[tensor.dtype] > 1:
        return False
    for stride, size in sorted(zip(source.stride, tensor.shape, strict=True)):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


class _Files:
    """Descriptors of the files that are being read, a few for each thread."""

    def __init__(self) -> None:
        self._own = threading.local()
        self._all: list[dict[Path, int]] = []

    def descriptor(self, file: Path) -> int:
        """That of a file, in this thread."""
        found: dict[Path, int] | None = getattr(self._own, "open", None)
        if found is None:
            found = self._own.open = {}
            self._all.append(found)
        if file not in found:
            if len(found) >= _MOST_OPEN:  # shards can be thousands
                _close(found)
            found[file] = open_file(file)
        return found[file]

    def close(self) -> None:
        """Close all of them."""
        for found in self._all:
            _close(found)


def _close(found: dict[Path, int]) -> None:
    while found:
        os.close(found.popitem()[1])


def _cores() -> int:
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

"""Who does what in which order in a step of the CPU kernel: the tables that `cpu.c` reads."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

CHUNK = 2**16
"""Elements that a thread claims at once; a multiple of 256."""

CELL = 5
"""Numbers of the struct Cell: elements, parts, pending, agreeing, given."""

# Numbers of cpu.c.
_WEIGHT_BF16, _GRAD_BF16, _MOMENTUM_BF16, _SPLIT = 1, 2, 4, 8
_GIVEN, _WHOLE, _CODED, _AGAIN = range(4)
_ROW = 256  # elements that the fewest whole vectors of codes cover, on any instruction set

_Item: TypeAlias = tuple[int, int, int, int, int]


class Entry(NamedTuple):
    """A parameter's tensors: local, strided and real, all of one shape and one layout.

    Attributes:
        param: The weights, float32 or bfloat16.
        exp_avg: The momentum, float32 or bfloat16.
        residual: int16, what bfloat16 weights lack of float32, or None.
        group: Which of the `Hypers` is its.
    """

    param: Tensor
    exp_avg: Tensor
    residual: Tensor | None
    group: int


class Mode(NamedTuple):
    """How the tensors of a group come by the sizes of their steps."""

    counts: bool
    together: bool
    cautious: bool


class Schedule:
    """Who does what in a step, and in which order.

    Attributes:
        tensors: Rows of the struct Tensor.
        items: Rows of the struct Item: what counts comes before what needs the counts.
        item_count: Their number.
        cells: Rows of the struct Cell, of the tensors and then of the groups.
        codes: Room for two bits an element of those tensors that need it, or None.
    """

    def __init__(
        self, entries: Sequence[Entry], modes: Sequence[Mode], wide: Sequence[bool]
    ) -> None:
        """Lay out the tables.

        Args:
            entries: The tensors.
            modes: Of each group.
            wide: Of each tensor, whether its gradient is float32 where its weights are not.
        """
        ways = [_way(entry.param.numel(), modes[entry.group]) for entry in entries]
        rows, words = _tensor_rows(entries, ways, wide)
        sizes = [entry.param.numel() for entry in entries]
        first = list(_items(sizes, [True for _ in ways], 1))
        second = list(_items(sizes, [way in (_CODED, _AGAIN) for way in ways], 2))
        self.tensors = array("q", rows)
        self.items = array("q", [number for item in first + second for number in item])
        self.item_count = len(first) + len(second)
        self.cells = _cells(entries, first, len(modes))
        self.codes = torch.empty(words, dtype=torch.int32) if words else None


def _way(numel: int, mode: Mode) -> int:
    if not mode.counts:
        return _GIVEN
    if numel <= CHUNK and not mode.together:
        return _WHOLE
    return _AGAIN if mode.cautious else _CODED


def _tensor_rows(
    entries: Sequence[Entry], ways: Sequence[int], wide: Sequence[bool]
) -> tuple[list[int], int]:
    """The rows, and how many words the codes take."""
    rows: list[int] = []
    words = 0
    for entry, way, is_wide in zip(entries, ways, wide, strict=True):
        residual = 0 if entry.residual is None else entry.residual.data_ptr()
        rows += [entry.param.data_ptr(), entry.exp_avg.data_ptr(), residual]
        rows += [entry.param.numel(), _kind(entry, is_wide), entry.group, way, words]
        if way == _CODED:
            words += -(-entry.param.numel() // _ROW) * (_ROW // 16)
    return rows, words


def _kind(entry: Entry, wide: bool) -> int:
    kind = 0
    if entry.param.dtype == torch.bfloat16:
        kind = _WEIGHT_BF16 if wide else _WEIGHT_BF16 | _GRAD_BF16
    kind |= _MOMENTUM_BF16 if entry.exp_avg.dtype == torch.bfloat16 else 0
    return kind | (_SPLIT if entry.residual is not None else 0)


def _items(sizes: Sequence[int], wanted: Sequence[bool], phase: int) -> Iterator[_Item]:
    """Large tensors in pieces, neighbours of small ones together: first, last, start, end."""
    first, elements = 0, 0  # of the neighbours that wait for more
    for i, (size, is_wanted) in enumerate(zip(sizes, wanted, strict=True)):
        if first < i and not (is_wanted and elements + size <= CHUNK):
            yield first, i - 1, 0, sizes[i - 1], phase
            first = i
        if first == i:
            elements = 0
        if not is_wanted:
            first = i + 1
        elif size > CHUNK:
            for start in range(0, size, CHUNK):
                yield i, i, start, min(start + CHUNK, size), phase
            first = i + 1
        else:
            elements += size
    if first < len(sizes):
        yield first, len(sizes) - 1, 0, sizes[-1], phase


def _cells(entries: Sequence[Entry], items: Sequence[_Item], groups: int) -> array[int]:
    """Of each tensor and each group: elements and parts in which they are counted, and counts."""
    numels, parts = [0] * (len(entries) + groups), [0] * (len(entries) + groups)
    for place, entry in enumerate(entries):
        numels[place] = entry.param.numel()
        numels[len(entries) + entry.group] += entry.param.numel()
    for first, last, *_ in items:
        for place in range(first, last + 1):
            parts[place] += 1
            parts[len(entries) + entries[place].group] += 1
    rows = zip(numels, parts, strict=True)
    return array("q", [number for numel, part in rows for number in (numel, part, 0, 0, 0)])

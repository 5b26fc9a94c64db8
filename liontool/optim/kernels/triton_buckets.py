"""Tables for the launches of a plan: rows of tensors, and records of their chunks by kind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import triton.language as tl
from torch import Tensor

from liontool.optim import rounding
from liontool.optim.kernels import triton_table
from liontool.optim.kernels.triton_layout import WIDTH, Entry, Hypers

_TYPES = {
    torch.float32: tl.float32,
    torch.float16: tl.float16,
    torch.bfloat16: tl.int16,  # see triton_rounding
}
_COLUMNS = triton_table.COLUMNS.value


class Tile(NamedTuple):
    """How tensors are cut: elements of a program, elements of one turn of its loop, warps."""

    chunk: int = 8192
    block: int = 1024
    warps: int = 4


class Kind(NamedTuple):
    """What is compiled in: tensors that have it in common share a launch."""

    param: torch.dtype
    grad: torch.dtype
    exp_avg: torch.dtype
    aligned: bool
    rounding: str
    two_passes: bool
    cautious: bool
    signed: bool

    def types(self, *names: str) -> dict[str, Any]:
        """Types and guaranteed alignments of the pointers of a kernel, in bytes.

        Each thread has the same number of elements of all of them, so that none of them must be
        handed over from thread to thread.
        """
        dtypes = [getattr(self, name) for name in names]
        widest = max(dtype.itemsize for dtype in dtypes)
        result: dict[str, Any] = {}
        for name, dtype in zip(names, dtypes, strict=True):
            letter = {"param": "P", "grad": "G", "exp_avg": "M"}[name]
            result[letter] = _TYPES[dtype]
            elements = WIDTH // widest if self.aligned else 1
            result[letter + "A"] = elements * dtype.itemsize
        return result

    def marked(self, *names: str) -> int:
        """Marks that a thread packs, as many as the elements that it loads at once."""
        sizes: list[int] = [getattr(self, name).itemsize for name in names]
        return WIDTH // max(sizes)


@dataclass
class Bucket:
    """The chunks of all tensors of one kind.

    Attributes:
        kind: Theirs.
        records: One a chunk: the tensor in the upper half, in the lower which of its chunks.
        place: Of its first record among those of all buckets.
    """

    kind: Kind
    records: Tensor
    place: int


@dataclass
class Tables:
    """What the launches of a plan read, and what they are.

    Attributes:
        rows: One a tensor, see `triton_table`.
        buckets: One launch each.
        records: Of all buckets.
        marks: Elements that need a mark, each tensor's rounded up.
    """

    rows: Tensor
    buckets: list[Bucket]
    records: int
    marks: int


def arranged(
    entries: Sequence[Entry],
    dtypes: Sequence[torch.dtype],
    aligned: Sequence[bool],
    hypers: Sequence[Hypers],
    chunk: int,
) -> Tables:
    """The tables for gradients of these dtypes and alignments."""
    rows = np.array([_row(entry, hypers[entry.group]) for entry in entries], dtype=np.int64)
    kinds: dict[Kind, list[int]] = {}
    for place, entry in enumerate(entries):
        if entry.param.numel():
            kind = _kind(entry, dtypes[place], aligned[place], hypers[entry.group])
            kinds.setdefault(kind, []).append(place)
    numel = rows[:, triton_table.NUMEL.value]
    padded = -(-numel // 64) * 64
    rows[:, triton_table.MARKS.value] = np.cumsum(padded) - padded
    chunks = -(-numel // chunk)
    rows[:, triton_table.RECORDS.value] = chunks
    device = entries[0].param.device
    buckets, done = [], 0
    for kind, members in kinds.items():
        places = np.array(members)
        counts = chunks[places]
        before = np.cumsum(counts) - counts
        rows[places, triton_table.RECORD.value] = done + before
        each = np.arange(counts.sum()) - np.repeat(before, counts)
        records = (np.repeat(places, counts) << 32) | each
        buckets.append(Bucket(kind, torch.from_numpy(records).to(device), done))
        done += len(records) + len(records) % 2  # even, so that partial sums are aligned
    return Tables(torch.from_numpy(rows).to(device), buckets, done, int(padded.sum()))


def is_aligned(entry: Entry) -> bool:
    """Whether weights and state begin where a wide access may."""
    return all(tensor.data_ptr() % WIDTH == 0 for tensor in entry.tensors())


def _row(entry: Entry, hyper: Hypers) -> list[int]:
    row = [0] * _COLUMNS
    numel = entry.param.numel()
    values = {
        triton_table.PARAM: entry.param.data_ptr(),
        triton_table.EXP_AVG: entry.exp_avg.data_ptr(),
        triton_table.RESIDUAL: 0 if entry.residual is None else entry.residual.data_ptr(),
        triton_table.NUMEL: numel,
        triton_table.GROUP: entry.group,
        triton_table.KEY: _key(hyper.seed, entry.ordinal),
        triton_table.INDEX: entry.offset,
        triton_table.WHOLE: entry.all_elements,
    }
    for column, value in values.items():
        row[column.value] = value
    return row


def _key(seed: int, ordinal: int) -> int:
    """What `rounding.key` makes of these two; the kernel goes on with the step."""
    key = rounding.START
    for number in (seed, ordinal):
        key = rounding.mix(key ^ (number & rounding.WORD))
        key = rounding.mix(key ^ ((number >> 32) & rounding.WORD))
    return key


def _kind(entry: Entry, grad: torch.dtype, aligned: bool, hyper: Hypers) -> Kind:
    narrow = entry.param.dtype == torch.bfloat16
    split = hyper.rounding == "split" and entry.residual is not None
    stochastic = hyper.rounding == "stochastic" and narrow
    return Kind(
        entry.param.dtype,
        grad,
        entry.exp_avg.dtype,
        aligned and is_aligned(entry),
        "split" if split else "stochastic" if stochastic else "nearest",
        hyper.agreement is not None or hyper.cautious,
        hyper.cautious,
        hyper.signed,
    )

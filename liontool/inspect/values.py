"""Values that no run has: NaN, infinities, negative averages of squares, moments of zeros."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from liontool.checkpoint import values
from liontool.checkpoint.document import ITEM_SIZES, Span, Stored, TensorRef
from liontool.checkpoint.encoding import decoded
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.reading import BLOCK, extents, ranges
from liontool.checkpoint.reading import opened as opened_file
from liontool.errors import ReadError
from liontool.inspect.checksums import Advance, Check, Checksums, judged
from liontool.inspect.findings import Finding
from liontool.inspect.listing import OTHER, STATE, Item
from liontool.inspect.opening import Opened
from liontool.inspect.places import short

if TYPE_CHECKING:
    from liontool.checkpoint.encoding import Array

SECOND_MOMENTS = frozenset({"exp_avg_sq", "max_exp_avg_sq", "exp_avg_var", "max_exp_avg_var"})
"""Averages of squares, which cannot be negative."""
MOMENTS = SECOND_MOMENTS | {"exp_avg", "exp_avg_diff", "momentum_buffer"}
"""State that is zero throughout only before the first step, or where there never was a gradient."""


def check_values(
    items: Sequence[Item], checksums: Checksums, advance: Advance
) -> Iterator[Finding]:
    """Read every tensor of floats once, with the checksums of their storages.

    Args:
        items: The tensors.
        checksums: Those whose storage is read here are taken out.
        advance: Called with the bytes of each block.
    """
    zeros: list[Item] = []
    for item in _worth_reading(items):
        seen = _Seen(item)
        try:
            yield from _streamed(item.tensor, checksums, advance, seen)
        except ReadError as error:
            yield Finding("unreadable", item.label, str(error))
            continue
        yield from seen.findings()
        if seen.is_zero:
            zeros.append(item)
    yield from _zero_moments(zeros)


def bytes_to_read(items: Iterable[Item]) -> int:
    """What `check_values` reads."""
    return sum(item.tensor.nbytes for item in _worth_reading(items))


def check_steps(opened: Opened) -> Iterator[Finding]:
    """Whether the parameters' steps are those of the run, where one optimizer makes them all."""
    checkpoint = opened.checkpoint
    if checkpoint is None or checkpoint.step is None or len(checkpoint.optimizers) != 1:
        return
    slots = checkpoint.optimizers[0].slots.values()
    steps = [step for slot in slots if (step := number(slot.state.get("step"))) is not None]
    if steps and max(steps) != checkpoint.step:
        text = f"the parameters have made {max(steps):,.0f} steps, the run {checkpoint.step:,}"
        yield Finding("step-mismatch", "", f"{text}; is the state of another checkpoint?")


def _worth_reading(items: Iterable[Item]) -> Iterator[Item]:
    for item in items:
        tensor = item.tensor
        floats = values.is_float(tensor.dtype) or tensor.dtype.startswith("complex")
        if floats and tensor.numel and isinstance(tensor.source, Stored):
            yield item


@dataclass
class _Seen:
    """What the blocks of one tensor have shown so far."""

    item: Item
    position: int = 0
    bad: int = 0
    first_bad: int = -1
    negative: int = 0
    first_negative: int = -1
    nonzero: bool = False
    nan: bool = False
    moving: bool = False

    def add(self, block: bytes | memoryview) -> None:
        """Look at a block of whole elements, little-endian."""
        dtype = self.item.tensor.dtype
        array: Array | None = None
        if not values.all_finite(block, dtype):
            array = decoded(block, dtype)
            self._nonfinite(array)
        if not self.moving:
            array = decoded(block, dtype) if array is None else array
            self._moving(array)
        field = self.item.field if self.item.role == STATE else None
        if field in SECOND_MOMENTS:
            array = decoded(block, dtype) if array is None else array
            self._negative(array)
        if field in MOMENTS and not self.nonzero:
            array = decoded(block, dtype) if array is None else array
            self.nonzero = bool(array.any())
        self.position += len(block) // ITEM_SIZES[dtype]

    def _nonfinite(self, array: Array) -> None:
        import numpy as np

        bad = ~np.isfinite(array)
        if self.bad == 0:
            self.first_bad = self.position + int(bad.argmax())
        self.bad += int(np.count_nonzero(bad))
        self.nan = self.nan or bool(np.isnan(array).any())

    def _moving(self, array: Array) -> None:
        import numpy as np

        self.moving = bool((np.isfinite(array) & (array != 0)).any())

    def _negative(self, array: Array) -> None:
        import numpy as np

        if array.dtype.kind == "c" or (not array.min() < 0 and not np.isnan(array.min())):
            return
        below = array < 0
        if self.negative == 0 and below.any():
            self.first_negative = self.position + int(below.argmax())
        self.negative += int(np.count_nonzero(below))

    @property
    def is_zero(self) -> bool:
        """Whether it is a moment, and zero throughout."""
        return self.item.role == STATE and self.item.field in MOMENTS and not self.nonzero

    @property
    def may_be_infinite(self) -> bool:
        """Whether it may well hold what is not finite: a best score so far, a mask of attention."""
        role, is_number = self.item.role, self.item.tensor.numel == 1
        if role == OTHER and (is_number or not self.nan):
            return True
        return role != STATE and not self.nan and not self.moving

    def findings(self) -> Iterator[Finding]:
        """What is wrong with it."""
        tensor, label = self.item.tensor, short(self.item.label)
        if self.bad:
            kind = "nonfinite-elsewhere" if self.may_be_infinite else "nonfinite"
            text = f"{self.bad:,} of {tensor.numel:,} values are NaN or infinite, the first at "
            yield Finding(kind, label, text + _index(self.first_bad, tensor.shape))
        if self.negative:
            text = f"{self.negative:,} of {tensor.numel:,} values are negative, the first at "
            where = _index(self.first_negative, tensor.shape)
            yield Finding("negative-second-moment", label, text + where)


def _index(flat: int, shape: tuple[int, ...]) -> str:
    """A position in a tensor as its indices."""
    indices: list[int] = []
    for size in reversed(shape):
        flat, index = divmod(flat, size)
        indices.append(index)
    return str(indices[::-1])


def _streamed(
    tensor: TensorRef, checksums: Checksums, advance: Advance, seen: _Seen
) -> Iterator[Finding]:
    """Show `seen` all blocks; the checksum of the storage is made on the way where it can be."""
    if not tensor.is_contiguous or not isinstance(tensor.source, Stored):
        for block in values.byte_blocks(tensor):
            seen.add(block)
            advance(len(block))
        return
    span, storage = values.span_of(tensor), tensor.source.storage
    check = checksums.take(span) if span == storage.span else None
    crc, done = 0, span.offset
    for part in [span] if check else _data(span, ITEM_SIZES[tensor.dtype]):
        advance(part.offset - done)
        done = part.offset + part.length
        crc = _read(part, tensor, advance, seen, check)
    advance(span.offset + span.length - done)
    if check is not None:
        yield from judged(check, crc)


def _data(span: Span, item: int) -> Iterator[Span]:
    """The parts of a range that are no holes, widened to whole elements; holes are zeros."""
    with opened_file(span.file) as fd:
        done, last = span.offset, span.offset + span.length
        for start, stop in extents(fd, span):
            begin = max(done, start - (start - span.offset) % item)
            done = min(last, stop + -(stop - span.offset) % item)
            if begin < done:
                yield Span(span.file, begin, done - begin)


def _read(part: Span, tensor: TensorRef, advance: Advance, seen: _Seen, check: Check | None) -> int:
    """Show `seen` a part of a tensor; its CRC-32 where there is something to check."""
    assert isinstance(tensor.source, Stored)
    item, crc = ITEM_SIZES[tensor.dtype], 0
    seen.position = (part.offset - values.span_of(tensor).offset) // item
    for block in ranges(part, BLOCK // item * item):
        crc = zlib.crc32(block, crc) if check is not None else 0
        little = tensor.source.storage.byteorder == "little"
        seen.add(block if little else values.byteswapped(block, tensor.dtype))
        advance(len(block))
    return crc


def _zero_moments(items: Sequence[Item]) -> Iterator[Finding]:
    """One finding for each state, since whole optimizers can be without a gradient."""
    fields = dict.fromkeys((item.optimizer, item.field) for item in items)
    for optimizer, field in fields:
        same = [item for item in items if (item.optimizer, item.field) == (optimizer, field)]
        names = ", ".join(short(item.parameter or "") for item in same[:3])
        more = f" and {len(same) - 3:,} more" if len(same) > 3 else ""
        text = f"{len(same):,} are zero throughout ({names}{more}): no gradient, or started anew"
        yield Finding("zero-moment", str(field), text)

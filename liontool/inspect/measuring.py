"""The one pass of `statistics` over tensors: alone, or both moments of a parameter side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.encoding import decoded, is_float
from liontool.checkpoint.model import Checkpoint, Fields, Optimizer, Slot
from liontool.inspect.listing import Item
from liontool.inspect.sharing import is_same
from liontool.measure.adam_moments import has_moments, second_moment
from liontool.measure.evidence import Adam, TensorEvidence, UpdateSums
from liontool.measure.passes import Job, passed
from liontool.measure.summary import ValueSummary
from liontool.measure.sums import real_dtype, sums_for
from liontool.states import MOMENT, recognise

_BETAS = (0.9, 0.99)  # of the Lion that evidence speaks of besides


@dataclass
class Measured:
    """What was found.

    Attributes:
        values: By identity of the tensor.
        updates: What both moments say, by optimizer and group.
        bytes: Read, holes included.
    """

    values: dict[int, ValueSummary] = field(default_factory=dict)
    updates: dict[tuple[int, int], list[TensorEvidence]] = field(default_factory=dict)
    bytes: int = 0


def measured(
    checkpoint: Checkpoint | None,
    items: Sequence[Item],
    sharing: Mapping[int, Item],
    progress: Callable[[int, int], None] | None,
) -> Measured:
    """Read tensors, each once.

    Args:
        checkpoint: Whose groups tell how moments become updates.
        items: What to read.
        sharing: As `shared` gives it; what is the same as another is not read again.
        progress: Called with the bytes read so far and in all.
    """
    tensors = [item.tensor for item in items if not _is_copy(item, sharing)]
    found = Measured()
    total = sum(tensor.nbytes for tensor in tensors)

    def advance(count: int) -> None:
        found.bytes += count
        if progress is not None:
            progress(found.bytes, total)

    works = list(_works(checkpoint, tensors))
    jobs = (work.job for work in works)
    for work, sums in zip(works, passed(jobs, advance), strict=True):
        work.conclude(sums, found)
    for item in items:
        if _is_copy(item, sharing):
            found.values[id(item.tensor)] = found.values[id(sharing[id(item.tensor)].tensor)]
    return found


def _is_copy(item: Item, sharing: Mapping[int, Item]) -> bool:
    owner = sharing.get(id(item.tensor))
    return owner is not None and is_same(owner.tensor, item.tensor)


class _Alone:
    """A tensor by itself."""

    def __init__(self, tensor: TensorRef) -> None:
        self._tensor = tensor
        self.job = Job((tensor,), lambda: sums_for(tensor.dtype, tensor.numel))

    def conclude(self, sums: Any, found: Measured) -> None:
        found.values[id(self._tensor)] = sums.concluded()


class _Moments:
    """Both moments of a parameter."""

    def __init__(self, slot: Slot, fields: Fields, group: tuple[int, int]) -> None:
        self._slot, self._group = slot, group
        adam, moments = Adam.of(slot, fields), (slot.state[MOMENT], second_moment(slot))
        self.job = Job(moments, lambda: _MomentSums(moments, adam))

    def conclude(self, sums: _MomentSums, found: Measured) -> None:
        for tensor, part in zip(self.job.tensors, sums.parts, strict=True):
            found.values[id(tensor)] = part.concluded()
        evidence = sums.updates.concluded(self._slot.label, self.job.tensors[0].shape, _BETAS)
        found.updates.setdefault(self._group, []).append(evidence)


class _MomentSums:
    """Sums over either moment, and over the updates that both make."""

    def __init__(self, moments: Sequence[TensorRef], adam: Adam) -> None:
        self.parts = [sums_for(tensor.dtype, tensor.numel) for tensor in moments]
        self.updates = UpdateSums(adam)
        self._dtypes = [real_dtype(tensor.dtype) for tensor in moments]
        self._width = 1 + moments[0].dtype.startswith("complex")

    def add(self, *blocks: Any) -> None:
        for part, block in zip(self.parts, blocks, strict=True):
            part.add(block)
        first, second = map(decoded, blocks, self._dtypes)
        self.updates.add(first, second)

    def add_still(self, elements: int) -> None:
        for part in self.parts:
            part.add_still(elements)
        self.updates.add_still(elements * self._width)

    def join(self, other: _MomentSums) -> None:
        for part, more in zip(self.parts, other.parts, strict=True):
            part.join(more)
        self.updates.join(other.updates)


def _works(
    checkpoint: Checkpoint | None, tensors: Sequence[TensorRef]
) -> Iterator[_Alone | _Moments]:
    """What to do, in the order of the files: the pass reads on where it stopped."""
    chosen = {id(tensor) for tensor in tensors}
    pairs: dict[int, _Moments] = {}
    done: set[int] = set()
    for index, optimizer in enumerate(checkpoint.optimizers if checkpoint else ()):
        for work in _pairs(optimizer, index):
            first, second = map(id, work.job.tensors)
            if {first, second} <= chosen and not {first, second} & done:
                pairs[first] = work
                done |= {first, second}
    for tensor in tensors:
        if id(tensor) in pairs:
            yield pairs[id(tensor)]
        elif id(tensor) not in done:
            yield _Alone(tensor)


def _pairs(optimizer: Optimizer, index: int) -> Iterator[_Moments]:
    """Every parameter with Adam's moments."""
    slots = optimizer.slots
    found = recognise(
        (group.fields for group in optimizer.groups), (slot.state.keys() for slot in slots.values())
    )
    if not found.kind.startswith("Adam"):
        return
    for number, group in enumerate(optimizer.groups):
        for key in group.params:
            if key in slots and has_moments(slots[key]) and _is_even(slots[key]):
                yield _Moments(slots[key], group.fields, (index, number))


def _is_even(slot: Slot) -> bool:
    """Whether both moments have floats for each element."""
    first, second = slot.state[MOMENT], second_moment(slot)
    reals = [real_dtype(tensor.dtype) for tensor in (first, second)]
    both_complex = (reals[0] != first.dtype) == (reals[1] != second.dtype)
    return first.numel == second.numel and both_complex and all(map(is_float, reals))

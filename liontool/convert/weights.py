"""Which weights an optimizer's moments belong to, as far as a share over a whole group needs it."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.checkpoint.document import TensorRef, tensors
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.source import Source
from liontool.checkpoint.values import is_float
from liontool.errors import ReadError
from liontool.states import MOMENT

_WEIGHT_FILES = (".safetensors", ".bin")


def weights_by_slot(
    source: Source, checkpoint: Checkpoint, optimizer: Optimizer
) -> dict[int | str, TensorRef]:
    """A weight for each slot, told by its shape: right for groups as wholes, not for each slot.

    Optimizers keep positions, not names. But a weight whose shape occurs in one group alone belongs
    to that group, and what is asked of weights here is asked of groups. Weights with other shapes,
    and those that are not in the source, are left out.
    """
    free: dict[tuple[int, ...], list[int | str]] = {}
    owners: dict[tuple[int, ...], set[int]] = {}
    for index, group in enumerate(optimizer.groups):
        for key in group.params:
            moment = optimizer.slots[key].state.get(MOMENT) if key in optimizer.slots else None
            if isinstance(moment, TensorRef):
                free.setdefault(moment.shape, []).append(key)
                owners.setdefault(moment.shape, set()).add(index)
    found: dict[int | str, TensorRef] = {}
    for tensor in _weights(source, checkpoint):
        if len(owners.get(tensor.shape, ())) == 1 and free[tensor.shape]:
            found[free[tensor.shape].pop(0)] = tensor
    return found


def _weights(source: Source, checkpoint: Checkpoint) -> Iterator[TensorRef]:
    """Every float tensor of the source that is in no optimizer's state."""
    states = {
        id(value)
        for optimizer in checkpoint.optimizers
        for slot in optimizer.slots.values()
        for value in slot.state.values()
    }
    names = [n for n in source.listing() if n.endswith(_WEIGHT_FILES)] if source.is_folder else [""]
    for name in names:
        try:
            tree = source.document(name).tree
        except ReadError:  # a stranger with the suffix of weights; they are only counted here
            continue
        for _, tensor in tensors(tree):
            if is_float(tensor.dtype) and id(tensor) not in states:
                yield tensor

"""Which weights an optimizer's moments belong to, as far as a share over a whole group needs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from liontool.checkpoint.document import Document, TensorRef, tensors
from liontool.checkpoint.frameworks.torch_layout import is_optimizer, nodes
from liontool.checkpoint.frameworks.weights import weights_by_name
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.readable import readable
from liontool.checkpoint.source import Source
from liontool.checkpoint.values import is_float
from liontool.states import MOMENT

_WEIGHT_FILES = (".safetensors", ".bin")

Weights = dict[int | str, TensorRef]


def weights_by_slot(source: Source, checkpoint: Checkpoint, optimizer: Optimizer) -> Weights:
    """A weight for each slot, as far as it can be told: by name, or else by shape.

    Shapes are right for groups as wholes, not for each slot. Many optimizers keep positions, not
    names. But a weight whose shape occurs in one group alone belongs to that group, and what is
    asked of weights here is asked of groups. Weights with other shapes, and those that are not in
    the source, are left out. Averages of the weights come last, wherever they lie in the file.
    """
    # A stranger with the suffix of weights is left out; they are only counted here.
    documents = list(readable(source, _WEIGHT_FILES))
    return _by_name(documents, optimizer) or _by_shape(documents, checkpoint, optimizer)


def _by_name(documents: list[Document], optimizer: Optimizer) -> Weights:
    slots = [slot for slot in optimizer.slots.values() if slot.name is not None]
    if not slots:
        return {}
    trees = [
        (_is_average(document, place.path), value)
        for document in documents
        for place, value in nodes(document, is_leaf=is_optimizer)
        if isinstance(value, Mapping)
    ]
    mappings = [value for _, value in sorted(trees, key=lambda entry: entry[0])]
    known = weights_by_name([slot.label for slot in slots], mappings)
    found = {slot.key: known[slot.label] for slot in slots if slot.label in known}
    return {key: tensor for key, tensor in found.items() if is_float(tensor.dtype)}


def _by_shape(documents: list[Document], checkpoint: Checkpoint, optimizer: Optimizer) -> Weights:
    free: dict[tuple[int, ...], list[int | str]] = {}
    owners: dict[tuple[int, ...], set[int]] = {}
    for index, group in enumerate(optimizer.groups):
        for key in group.params:
            moment = optimizer.slots[key].state.get(MOMENT) if key in optimizer.slots else None
            if isinstance(moment, TensorRef):
                free.setdefault(moment.shape, []).append(key)
                owners.setdefault(moment.shape, set()).add(index)
    found: Weights = {}
    for tensor in _weights(documents, checkpoint):
        if len(owners.get(tensor.shape, ())) == 1 and free[tensor.shape]:
            found[free[tensor.shape].pop(0)] = tensor
    return found


def _weights(documents: list[Document], checkpoint: Checkpoint) -> list[TensorRef]:
    """Every float tensor of the source that is in no optimizer's state, averages last."""
    states = {
        id(value)
        for optimizer in checkpoint.optimizers
        for slot in optimizer.slots.values()
        for value in slot.state.values()
    }
    found = [
        (_is_average(document, path), tensor)
        for document in documents
        for path, tensor in tensors(document.tree)
        if is_float(tensor.dtype) and id(tensor) not in states
    ]
    return [tensor for _, tensor in sorted(found, key=lambda entry: entry[0])]


def _is_average(document: Document, path: Sequence[object]) -> bool:
    """Whether a path has the word in it: `ema`, `model_ema.h.0`, `ema_weights.safetensors`."""
    text = ".".join(map(str, (document.name, *path))).lower()
    return "ema" in text and "ema" in text.replace("_", ".").replace("-", ".").split(".")

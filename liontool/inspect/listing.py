"""Every tensor of a checkpoint with its part in it: weight, optimizer state, or something else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from liontool.checkpoint.document import Document, TensorRef, Value, tensors
from liontool.checkpoint.frameworks import torch_layout
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.readable import readable
from liontool.checkpoint.source import Source
from liontool.inspect.opening import Opened

WEIGHT, STATE, OTHER = "weight", "state", "other"

TENSOR_FILES = (".pt", ".pth", ".ckpt", ".bin", ".safetensors")
"""How the files of a folder end that can hold tensors."""


@dataclass(frozen=True, eq=False, slots=True)
class Item:
    """One tensor.

    Attributes:
        name: By which it is found in another checkpoint of the run, whatever its container: a
            weight's own name, `state.<parameter>.<name>` for state, else its path.
        label: Where it lies: the file in a folder, and the path in its tree.
        role: "weight", "state" or "other".
        tensor: The tensor.
        parameter: Name, or position, of the parameter that state belongs to.
        field: Which state it is: "exp_avg".
        optimizer: Index of the optimizer that state belongs to.
        group: Index of the parameter group that state belongs to.
    """

    name: str
    label: str
    role: str
    tensor: TensorRef
    parameter: str | None = None
    field: str | None = None
    optimizer: int | None = None
    group: int | None = None


def listed(opened: Opened, unread: list[str] | None = None) -> tuple[Item, ...]:
    """All tensors in the order of the files, each once.

    Args:
        opened: The checkpoint.
        unread: Gets a sentence for each file of a folder that cannot be read, and is left out.
    """
    states = _states(opened.checkpoint)
    found: dict[int, Item] = {}
    for document in documents(opened.source, unread):
        names = _weight_names(document)
        for path, tensor in tensors(document.tree):
            label = ".".join(part for part in (document.name, *map(str, path)) if part)
            state = states.pop(id(tensor), None)
            if state is not None:
                item = replace(state, label=label)
            elif id(tensor) in names:
                item = Item(names[id(tensor)], label, WEIGHT, tensor)
            else:
                item = Item(label, label, OTHER, tensor)
            found.setdefault(id(tensor), item)
    return tuple(found.values())


def documents(source: Source, unread: list[str] | None = None) -> Iterator[Document]:
    """The files that can hold tensors; see `readable`."""
    return readable(source, TENSOR_FILES, unread)


def _states(checkpoint: Checkpoint | None) -> dict[int, Item]:
    """An item for each tensor of an optimizer's state, by its identity; labels are still empty."""
    optimizers = () if checkpoint is None else checkpoint.optimizers
    found: dict[int, Item] = {}
    for index, optimizer in enumerate(optimizers):
        # Of several optimizers each has a parameter 0.
        prefix = f"{optimizer.label}." if len(optimizers) > 1 else ""
        for item in _state_items(optimizer, index, prefix):
            found.setdefault(id(item.tensor), item)
    return found


def _state_items(optimizer: Optimizer, index: int, prefix: str) -> Iterator[Item]:
    groups = {key: n for n, group in enumerate(optimizer.groups) for key in group.params}
    for key, slot in optimizer.slots.items():
        for field, tensor in slot.tensors():
            name = f"{prefix}state.{slot.label}.{field}"
            yield Item(name, "", STATE, tensor, slot.label, field, index, groups.get(key))


def _weight_names(document: Document) -> dict[int, str]:
    """The names of weights by their identity: tensors by name, side by side in one mapping."""
    found: dict[int, str] = {}
    holders = [v for _, v in torch_layout.nodes(document, is_leaf=torch_layout.is_optimizer)]
    for holder in filter(is_weights, holders):
        for name, tensor in holder.items():
            if isinstance(tensor, TensorRef):
                found.setdefault(id(tensor), name)
    return found


def is_weights(value: Value) -> bool:
    """Whether a mapping is what `model.state_dict()` gives: more tensors by name than else."""
    if not isinstance(value, Mapping) or torch_layout.is_optimizer(value) or not len(value):
        return False
    found = [item for item in value.values() if isinstance(item, TensorRef)]
    return (
        2 * len(found) > len(value)
        and all(isinstance(key, str) for key in value)
        and any(tensor.dtype != "uint8" for tensor in found)  # else states of random generators
    )

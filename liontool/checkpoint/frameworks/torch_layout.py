"""How torch's optimizers and schedulers look in a file, found by what they are, not by their key.

optimizer   {'state': {parameter: {name: tensor}}, 'param_groups': [{'params': [...], ...}]}
scheduler   {'last_epoch': ..., 'base_lrs' or '_last_lr' or ...} or {'_schedulers': [schedulers]}
weights     {name: tensor}
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from liontool.checkpoint.document import (
    Document,
    Key,
    Opaque,
    Place,
    TensorRef,
    Value,
    is_list,
    is_plain,
)
from liontool.checkpoint.frameworks.weights import weights_by_name
from liontool.checkpoint.learning_rates import FOREIGN, number
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Scheduler, Slot
from liontool.errors import LimitError

MAX_NESTING = 32
"""Schedulers inside schedulers. Torch's own users nest two or three."""

_SCHEDULER_MARKS = frozenset({"base_lrs", "_last_lr", "min_lrs", "_step_count"})

# What the state of a scheduler has and its settings have not.
_STATE_MARKS = _SCHEDULER_MARKS | {
    "last_epoch", "last_step", "last_iter", "last_batch_iteration", "step", "step_count", "best",
    "current_step", "global_step", "iteration", "num_iters", "num_updates", "base_values",
}  # fmt: skip


@dataclass
class Found:
    """Everything in one document that is laid out like torch's, in the order of the file.

    Attributes:
        optimizers: Saved optimizer states.
        schedulers: Saved scheduler states that are not part of another scheduler.
    """

    optimizers: list[Optimizer] = field(default_factory=list)
    schedulers: list[Scheduler] = field(default_factory=list)


def search(document: Document, roots: Sequence[tuple[Key, ...]] = ((),)) -> Found:
    """Find optimizers and schedulers anywhere below `roots`; one that has two paths counts once.

    Args:
        document: The file.
        roots: Where to look; paths that the file does not have are passed over.
    """
    found = Found()
    schedulers: list[tuple[Place, Value]] = []
    known: dict[int, Fields] = {}
    for place, value in nodes(document, roots, is_leaf=is_optimizer):
        if is_optimizer(value):
            found.optimizers.append(optimizer(value, place, known))
        elif is_scheduler(value) or _is_called_scheduler(place, value):
            schedulers.append((place, value))
    found.schedulers = _outermost(schedulers)
    found.optimizers = [with_shapes(one, document) for one in found.optimizers]
    return found


def _outermost(schedulers: Sequence[tuple[Place, Value]]) -> list[Scheduler]:
    """Those that are not part of another one."""
    nested = {
        id(child) for _, value in schedulers for child in _descendants(value) if child is not value
    }
    return [scheduler(value, place) for place, value in schedulers if id(value) not in nested]


def object_facts(document: Document) -> dict[str, Any]:
    """What to say of objects in the file, which torch.load refuses unless it may run code."""
    names = class_names(document.tree)
    foreign = tuple(name for name in names if not _is_torch_constant(name))
    return {"objects": foreign} if foreign else {}


def class_names(tree: Value) -> tuple[str, ...]:
    """The classes of all objects in the tree outside of optimizers' states, sorted."""
    nodes = (value for _, value in _nodes(tree, is_leaf=is_optimizer))
    return tuple(sorted({value.name for value in nodes if isinstance(value, Opaque)}))


def _is_torch_constant(name: str) -> bool:
    """`torch.float32`, `torch.device`, `torch.Size` and the like."""
    return name.startswith("torch.") and name.count(".") == 1


def is_optimizer(value: Value) -> bool:
    """Whether `value` is what `optimizer.state_dict()` gives."""
    if not isinstance(value, Mapping):
        return False
    state, groups = value.get("state"), value.get("param_groups")
    return (
        isinstance(state, Mapping)
        and all(isinstance(key, (int, str)) for key in state)
        and all(isinstance(entry, Mapping) for entry in state.values())
        and is_list(groups)
        and len(groups) > 0
        and all(_is_group(group) for group in groups)
    )


def is_scheduler(value: Value) -> bool:
    """Whether `value` is the state of a learning-rate scheduler, or of several nested ones."""
    if not isinstance(value, Mapping):
        return False
    if _children(value) or any(kind.fits(value) for kind in FOREIGN):
        return True
    return _is_number(value.get("last_epoch")) and not _SCHEDULER_MARKS.isdisjoint(value)


def _is_called_scheduler(place: Place, value: Value) -> bool:
    """Whether `value` is the state of what the file calls a scheduler, of whatever class."""
    if not isinstance(value, Mapping) or _STATE_MARKS.isdisjoint(value):
        return False
    names = (key for key in reversed(place.path) if not isinstance(key, int))
    return "sched" in str(next(names, place.document)).lower()


def _is_number(value: Value) -> bool:
    """Epochs may be fractions, or one-element tensors."""
    if isinstance(value, TensorRef):
        return value.numel == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def optimizer(
    value: Mapping[Any, Value], place: Place, known: dict[int, Fields] | None = None
) -> Optimizer:
    """The model's view of an optimizer's state dict that lies at `place`.

    Args:
        value: The state dict.
        place: Where it lies.
        known: Fields by the identity of their mappings, added to here: two `state_dict()` of one
            optimizer in one file share the states of its parameters, which are changed once.
    """
    known = {} if known is None else known
    groups = tuple(
        _group(group, place / "param_groups" / index, known)
        for index, group in enumerate(value["param_groups"])
    )
    names = {
        key: name for group in groups for key, name in zip(group.params, group.names, strict=False)
    }
    states = place / "state"
    slots = {}
    for key, state in value["state"].items():
        fields = known.setdefault(id(state), Fields(state, states / key))
        slots[key] = Slot(key, fields, names.get(key))
    return Optimizer(label(place), groups, slots)


def scheduler(value: Mapping[Any, Value], place: Place, depth: int = 0) -> Scheduler:
    """The model's view of a scheduler's state dict that lies at `place`, with those nested in it.

    Raises:
        LimitError: Schedulers are nested beyond reason, or in themselves.
    """
    if depth > MAX_NESTING:
        raise LimitError(f"{label(place)}: schedulers are nested more than {MAX_NESTING} deep")
    nested = _children(value)
    fields = {name: item for name, item in value.items() if name != "_schedulers" or not nested}
    children = tuple(
        scheduler(child, place / "_schedulers" / index, depth + 1)
        for index, child in enumerate(nested)
    )
    return Scheduler(Fields(fields, place), children, label(place))


def with_shapes(optimizer: Optimizer, document: Document) -> Optimizer:
    """The same optimizer, with shapes where the file has the parameters' names and weights."""
    names = [slot.name for slot in optimizer.slots.values() if slot.name is not None]
    if not names:
        return optimizer
    nodes = (value for _, value in _nodes(document.tree, is_leaf=is_optimizer))
    mappings = (value for value in nodes if isinstance(value, Mapping))
    known = weights_by_name(names, mappings)
    slots = {
        key: replace(slot, shape=known[slot.name].shape) if slot.name in known else slot
        for key, slot in optimizer.slots.items()
    }
    return replace(optimizer, slots=slots)


def count(value: Value) -> int | None:
    """A number of steps, None where `value` is nothing of the kind."""
    steps = number(value)
    return int(steps) if steps is not None and math.isfinite(steps) else None


def label(place: Place) -> str:
    """A place as people write it: the file, where there are several, and the path in its tree."""
    return ".".join(part for part in (place.document, str(place)) if part)


def at(tree: Value, path: tuple[Key, ...]) -> Value:
    """The value that `path` leads to, else None. The way into an object is its name."""
    value = tree
    for key in path:
        value = next((child for name, child in _entries(value) if name == key), None)
    return value


def follow(tree: Value, dotted: str) -> tuple[Key, ...] | None:
    """The path that `dotted` spells, or None. Keys may contain dots themselves."""
    path: tuple[Key, ...] = ()
    value, rest = tree, dotted
    while rest:
        step = _step(value, rest)
        if step is None:
            return None
        key, value, rest = step
        path = (*path, key)
    return path


def _step(value: Value, dotted: str) -> tuple[Key, Value, str] | None:
    """The longest key of `value` that `dotted` begins with, what is there, what is left of it."""
    matches = [
        (str(key), key, child)
        for key, child in _entries(value)
        if dotted == str(key) or dotted.startswith(f"{key}.")
    ]
    if not matches:
        return None
    spelled, key, child = max(matches, key=lambda match: len(match[0]))
    return key, child, dotted[len(spelled) + 1 :]


def nodes(
    document: Document,
    roots: Sequence[tuple[Key, ...]] = ((),),
    is_leaf: Callable[[Value], bool] = lambda value: False,
) -> Iterator[tuple[Place, Value]]:
    """Every mapping, sequence and object below `roots` once, in the order of the file.

    What lies inside a leaf is not looked at.
    """
    seen: set[int] = set()
    for root in roots:
        for path, value in _nodes(at(document.tree, root), seen, is_leaf):
            yield Place(document.name, (*root, *path)), value


def _nodes(
    start: Value,
    seen: set[int] | None = None,
    is_leaf: Callable[[Value], bool] = lambda value: False,
) -> Iterator[tuple[tuple[Key, ...], Value]]:
    """Every mapping, sequence and object below `start` once, with its path, in file order."""
    seen = set() if seen is None else seen
    todo: list[tuple[tuple[Key, ...], Value]] = [((), start)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen or not (isinstance(value, (Mapping, Opaque)) or is_list(value)):
            continue
        seen.add(id(value))
        yield path, value
        if not is_leaf(value):
            below = [entry for entry in _entries(value) if not is_plain(entry[1])]
            todo.extend(((*path, key), child) for key, child in reversed(below))


def _entries(value: Value) -> Iterator[tuple[Key, Value]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif is_list(value):
        yield from enumerate(value)
    elif isinstance(value, Opaque):
        yield value.name, value.state


def _children(value: Mapping[Any, Value]) -> Sequence[Mapping[Any, Value]]:
    children = value.get("_schedulers")
    if not is_list(children) or not all(isinstance(child, Mapping) for child in children):
        return ()
    return children


def _descendants(value: Mapping[Any, Value]) -> Iterator[Mapping[Any, Value]]:
    """The schedulers nested in `value`, however deep, each once."""
    seen: set[int] = set()
    todo = list(_children(value))
    while todo:
        child = todo.pop()
        if id(child) not in seen:
            seen.add(id(child))
            yield child
            todo.extend(_children(child))


def _is_group(value: Value) -> bool:
    if not isinstance(value, Mapping) or not is_list(value.get("params")):
        return False
    return all(isinstance(key, (int, str)) for key in value["params"])


def _group(value: Mapping[Any, Value], place: Place, known: dict[int, Fields]) -> ParamGroup:
    params = tuple(value["params"])
    names = value.get("param_names")
    if not is_list(names) or len(names) != len(params):
        names = params
    named = all(isinstance(name, str) for name in names)
    own = {name: item for name, item in value.items() if name != "params"}
    fields = known.setdefault(id(value), Fields(own, place))
    return ParamGroup(fields, params, tuple(names) if named and params else ())

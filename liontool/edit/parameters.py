"""Parameters of an optimizer: their names, and optimizers with other names or fewer of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from typing import TypeGuard

from liontool.checkpoint.document import Value
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot

NAMES = "param_names"
"""Where a group keeps the names of its parameters."""


def names(optimizer: Optimizer) -> dict[int | str, str]:
    """The names of parameters by key, of those that have one."""
    found = {key: slot.name for key, slot in optimizer.slots.items() if slot.name is not None}
    for group in optimizer.groups:
        found.update(zip(group.params, group.names, strict=False))
    return found


def renamed(optimizer: Optimizer, new_name: Callable[[str], str]) -> Optimizer:
    """The same parameters under the names that `new_name` gives for theirs."""

    def key(old: int | str) -> int | str:
        return new_name(old) if isinstance(old, str) else old

    slots = {
        key(old): replace(slot, key=key(old), name=slot.name and new_name(slot.name))
        for old, slot in optimizer.slots.items()
    }
    groups = tuple(
        replace(
            group,
            params=tuple(map(key, group.params)),
            names=tuple(map(new_name, group.names)),
            fields=_with_names(group.fields, len(group.params), lambda old: map(new_name, old)),
        )
        for group in optimizer.groups
    )
    return replace(optimizer, groups=groups, slots=slots)


def without(optimizer: Optimizer, keys: Collection[int | str]) -> Optimizer:
    """The optimizer less the parameters `keys`: neither in groups nor in the state."""
    slots = {key: slot for key, slot in optimizer.slots.items() if key not in keys}
    groups = tuple(_group_without(group, keys) for group in optimizer.groups)
    return replace(optimizer, groups=groups, slots=slots)


def _group_without(group: ParamGroup, keys: Collection[int | str]) -> ParamGroup:
    left = [i for i, key in enumerate(group.params) if key not in keys]
    if len(left) == len(group.params):
        return group
    return replace(
        group,
        params=tuple(group.params[i] for i in left),
        names=tuple(group.names[i] for i in left) if group.names else (),
        fields=_with_names(group.fields, len(group.params), lambda old: (old[i] for i in left)),
    )


def _with_names(
    fields: Fields, count: int, change: Callable[[Sequence[str]], Iterable[str]]
) -> Fields:
    """The fields with `param_names` changed, where they are the names of the parameters."""
    old = fields.get(NAMES)
    if not _are_names(old, count):
        return fields
    new = list(change(old))
    return fields if new == list(old) else fields.replaced({NAMES: new})


def _are_names(value: Value, count: int) -> TypeGuard[Sequence[str]]:
    return (
        isinstance(value, Sequence)
        and not isinstance(value, (str, bytes))
        and len(value) == count
        and all(isinstance(name, str) for name in value)
    )


def with_states(optimizer: Optimizer, stays: Callable[[Slot, str], bool]) -> Optimizer:
    """The optimizer with those state tensors for which `stays` says so.

    A parameter of whose tensors none but a count is left loses that too: it starts anew.
    """
    slots: dict[int | str, Slot] = {}
    for key, slot in optimizer.slots.items():
        gone = [name for name, _ in slot.tensors() if not stays(slot, name)]
        left = [name for name, _ in slot.tensors() if name not in gone and name != "step"]
        if not gone:
            slots[key] = slot
        elif left:
            slots[key] = replace(slot, state=slot.state.without(*gone))
    return replace(optimizer, slots=slots)

"""Optimizers and schedulers of a training run as rules see them: frozen data, no I/O.

A framework makes a Checkpoint of Documents; a rule makes another Checkpoint of it; `plan` says what
differs, as Edits at the Places that the framework noted down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from liontool.checkpoint.document import (
    Delete,
    Edit,
    Insert,
    Place,
    Rename,
    Replace,
    TensorRef,
    Value,
)


class Fields(Mapping[str, Value]):
    """Named values that remember their Places; changed only by making another one.

    Rules use it as a mapping, with `replaced` and `without`. Only `plan` looks at the Places.

    Args:
        values: The values by name.
        place: Where the whole mapping lives; None for values that are in no file.
        places: Where single values live, if not at `place / name`.
    """

    __slots__ = ("_places", "_values", "place")

    def __init__(
        self,
        values: Mapping[str, Value],
        place: Place | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._values = dict(values)
        self.place = place
        self._places = dict(places) if places else None

    def __getitem__(self, name: str) -> Value:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"Fields({self._values!r})"

    def place_of(self, name: str) -> Place:
        """Where `name` lives, or would live if it were added."""
        if self._places and name in self._places:
            return self._places[name]
        if self.place is None:
            raise LookupError(f"'{name}' has no place in a file")
        return self.place / name

    def replaced(self, changes: Mapping[str, Value]) -> Fields:
        """The same fields with `changes` put in; new names come last."""
        return Fields({**self._values, **changes}, self.place, self._places)

    def without(self, *names: str) -> Fields:
        """The same fields less `names`; a name that is not there is no error."""
        kept = {name: value for name, value in self._values.items() if name not in names}
        return Fields(kept, self.place, self._places)


@dataclass(frozen=True, slots=True)
class Slot:
    """What an optimizer keeps for one parameter.

    Attributes:
        key: The key in the optimizer's `state`: a position, or a name.
        state: `exp_avg`, `exp_avg_sq`, `step` ...: TensorRefs and plain numbers.
        name: The parameter's name where the file tells it.
        shape: The parameter's own shape where the file tells it.
    """

    key: int | str
    state: Fields
    name: str | None = None
    shape: tuple[int, ...] | None = None

    def tensors(self) -> Iterator[tuple[str, TensorRef]]:
        """The tensors of the state by name, without plain numbers."""
        return ((name, item) for name, item in self.state.items() if isinstance(item, TensorRef))

    @property
    def label(self) -> str:
        """The name, or the key where there is none."""
        return self.name or str(self.key)


@dataclass(frozen=True)
class ParamGroup:
    """Hyperparameters, and the parameters that they hold for.

    Attributes:
        fields: Every key of the group but `params`.
        params: Keys of the slots, in the group's order. A parameter without state has no slot.
        names: Names of the parameters in the same order where the file tells them, else ().
    """

    fields: Fields
    params: tuple[int | str, ...]
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scheduler:
    """The saved state of one learning-rate scheduler.

    Attributes:
        fields: Its state, less `_schedulers`.
        children: The schedulers nested under `_schedulers`, in order.
        label: Its path in the file, for people: "lr_schedulers.0".
    """

    fields: Fields
    children: tuple[Scheduler, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Optimizer:
    """The saved state of one optimizer.

    Attributes:
        label: Its path in the file, as `--optimizer` takes it; "" is the whole file.
        groups: Parameter groups in order.
        slots: State by key, in the order of the file.
        schedulers: The schedulers that drive this optimizer, where that can be told.
        class_name: Its class where the checkpoint tells it: "torch.optim.adamw.AdamW".
    """

    label: str
    groups: tuple[ParamGroup, ...]
    slots: Mapping[int | str, Slot]
    schedulers: tuple[Scheduler, ...] = ()
    class_name: str = ""

    @property
    def state_bytes(self) -> int:
        """Memory that the state takes."""
        return sum(tensor.nbytes for slot in self.slots.values() for _, tensor in slot.tensors())


@dataclass(frozen=True)
class Checkpoint:
    """All that a framework found in its files.

    Attributes:
        framework: Name of the framework ("hf-trainer", "lightning", "plain").
        optimizers: Every optimizer with the schedulers that belong to it.
        loose_schedulers: Schedulers that could not be paired with one optimizer.
        step: Optimizer steps so far, as the framework counts them.
        epoch: Epochs so far, where known.
        facts: Further facts for people, in the order to show them ("lightning version": "2.6.6").
    """

    framework: str
    optimizers: tuple[Optimizer, ...]
    loose_schedulers: tuple[Scheduler, ...] = ()
    step: int | None = None
    epoch: float | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def plan(before: Checkpoint, after: Checkpoint) -> list[Edit]:
    """The edits that turn the files of `before` into those of `after`.

    Both must hold the same optimizers, groups and schedulers. Fields may differ, groups may list
    other parameters, and slots may be gone or have other keys; they are told by their Places.
    Fields that stand in `before` twice, because they do in the file, are changed once.
    """
    edits: list[Edit] = []
    done: set[int] = set()
    for old, new in zip(before.optimizers, after.optimizers, strict=True):
        edits.extend(_param_edits(old, new))
        edits.extend(_slot_edits(old, new))
    for old_fields, new_fields in _pairs(before, after):
        if old_fields is not new_fields and id(old_fields) not in done:
            done.add(id(old_fields))
            edits.extend(_field_edits(old_fields, new_fields))
    return edits


def slot_pairs(before: Optimizer, after: Optimizer) -> Iterator[tuple[Slot, Slot | None]]:
    """Each slot of `before` with what it has become; None if it is gone."""
    by_place = {slot.state.place: slot for slot in after.slots.values()}
    for key, slot in before.slots.items():
        place = slot.state.place
        yield slot, after.slots.get(key) if place is None else by_place.get(place)


def _param_edits(before: Optimizer, after: Optimizer) -> Iterator[Edit]:
    for old, new in zip(before.groups, after.groups, strict=True):
        if old.params != new.params:
            yield Replace(old.fields.place_of("params"), list(new.params))


def _slot_edits(before: Optimizer, after: Optimizer) -> Iterator[Edit]:
    if before.slots is after.slots:
        return
    for old, new in slot_pairs(before, after):
        if new is None:
            yield Delete(_slot_place(before, old))
        elif new.key != old.key:
            yield Rename(_slot_place(before, old), new.key)


def _slot_place(optimizer: Optimizer, slot: Slot) -> Place:
    """Where this optimizer has the slot; its fields may be shared with another optimizer."""
    group = optimizer.groups[0].fields.place
    if group is None:
        raise LookupError(f"the state of '{slot.label}' has no place in a file")
    return Place(group.document, (*group.path[:-2], "state", slot.key))


def _pairs(before: Checkpoint, after: Checkpoint) -> Iterator[tuple[Fields, Fields]]:
    for old, new in zip(before.optimizers, after.optimizers, strict=True):
        for old_group, new_group in zip(old.groups, new.groups, strict=True):
            yield old_group.fields, new_group.fields
        if old.slots is not new.slots:
            yield from ((s.state, t.state) for s, t in slot_pairs(old, new) if t is not None)
        yield from _scheduler_pairs(old.schedulers, new.schedulers)
    yield from _scheduler_pairs(before.loose_schedulers, after.loose_schedulers)


def _scheduler_pairs(
    before: tuple[Scheduler, ...], after: tuple[Scheduler, ...]
) -> Iterator[tuple[Fields, Fields]]:
    for old, new in zip(before, after, strict=True):
        yield old.fields, new.fields
        yield from _scheduler_pairs(old.children, new.children)


def _field_edits(old: Fields, new: Fields) -> Iterator[Edit]:
    for name in old:
        if name not in new:
            yield Delete(old.place_of(name))
        elif new[name] is not old[name]:
            yield Replace(old.place_of(name), new[name])
    for name in new:
        if name not in old:
            yield Insert(new.place_of(name), new[name])

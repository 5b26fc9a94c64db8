"""Whether groups and schedulers are what a conversion makes of the source's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.learning_rates import walk
from liontool.checkpoint.model import Checkpoint, Optimizer, Scheduler
from liontool.checkpoint.plain_values import json_value, plain
from liontool.inspect.bytewise import identical
from liontool.inspect.equality import Difference, differences
from liontool.inspect.places import short
from liontool.inspect.proof_groups import wanted_group, wanted_scheduler
from liontool.inspect.record import Record


@dataclass(frozen=True)
class Fault:
    """A field that is not as it must be."""

    where: str
    text: str


@dataclass(frozen=True)
class Pair:
    """An optimizer after and before its conversion.

    Attributes:
        after: The Lion.
        before: The AdamW that it was made of.
        ratio: What learning rates were divided by.
        as_json: Whether the result is a state file: parameters go by their names where all have
            one, and values are what JSON can keep.
    """

    after: Optimizer
    before: Optimizer
    ratio: float
    as_json: bool = False

    def labels(self) -> Mapping[int | str, int | str]:
        """What each parameter of the source is called in the result."""
        before = self.before
        keys = [key for group in before.groups for key in group.params]
        keys += [key for key in before.slots if key not in set(keys)]
        named = {
            key: name
            for group in before.groups
            for key, name in zip(group.params, group.names, strict=False)
        }
        named |= {key: slot.name for key, slot in before.slots.items() if slot.name}
        by_name = self.as_json and all(key in named for key in keys)
        if by_name and len(set(named.values())) == len(named):
            return dict(named)
        return {key: key for key in keys}


Claim = tuple[str, Mapping[str, Value], Mapping[str, Value]]
"""Where fields are, as they are, and as they must be."""


def field_faults(
    pairs: Sequence[Pair], ours: Checkpoint, theirs: Checkpoint, record: Record
) -> tuple[list[Fault], int]:
    """Fields that are not what the rule makes of the source's, and how many are.

    Args:
        pairs: The optimizers that were converted.
        ours: What they are in after it.
        theirs: What they were in.
        record: What else the conversion did.
    """
    faults: list[Fault] = []
    claims: list[Claim] = []
    for pair in pairs:
        labels = pair.labels()
        wanted = [tuple(labels[key] for key in group.params) for group in pair.before.groups]
        if [group.params for group in pair.after.groups] != wanted:
            text = "have other parameters, or another order, than the source's"
            faults.append(Fault("groups", text))
            continue
        claims += _claims(pair, ours, record)
    if pairs and theirs.loose_schedulers:
        claims += _loose(pairs[0], ours, theirs, record)
    as_json = any(pair.as_json for pair in pairs)
    return _checked(claims, faults, as_json)


def _claims(pair: Pair, ours: Checkpoint, record: Record) -> Iterator[Claim]:
    before = pair.before
    wanted = [wanted_group(group, before, pair.ratio, record) for group in before.groups]
    for index, (new, fields) in enumerate(zip(pair.after.groups, wanted, strict=True)):
        if pair.as_json:  # the names are what `params` lists
            fields.pop("param_names", None)
        yield f"group {index}", new.fields, fields
    found = _by_label(pair, ours)
    for position, old in enumerate(walk(before.schedulers)):
        place: int | str = position if pair.as_json else old.label
        fields = wanted_scheduler(old, wanted, pair.ratio, record)
        yield old.label or "scheduler", _fields_at(found, place), fields


def _loose(pair: Pair, ours: Checkpoint, theirs: Checkpoint, record: Record) -> Iterator[Claim]:
    """Schedulers of no known optimizer: all learning rates were divided by one ratio."""
    if pair.as_json:
        return
    found = _by_label(pair, ours)
    for old in walk(theirs.loose_schedulers):
        fields = wanted_scheduler(old, (), pair.ratio, record)
        yield old.label, _fields_at(found, old.label), fields


def _by_label(pair: Pair, ours: Checkpoint) -> dict[int | str, Scheduler]:
    """The schedulers of the result by their places; in a state file by their turn."""
    if pair.as_json:
        return dict(enumerate(walk(pair.after.schedulers)))
    every = [*ours.loose_schedulers, *(s for one in ours.optimizers for s in one.schedulers)]
    return {scheduler.label: scheduler for scheduler in walk(every)}


def _fields_at(found: Mapping[int | str, Scheduler], place: int | str) -> Mapping[str, Value]:
    return found[place].fields if place in found else {}


def _checked(
    claims: Sequence[Claim], faults: list[Fault], as_json: bool
) -> tuple[list[Fault], int]:
    count = 0
    for where, found, wanted in claims:
        if wanted and not found:
            faults.append(Fault(where, "is in the source and not here"))
            continue
        for key in [*wanted, *(key for key in found if key not in wanted)]:
            text = _fault(key, found, wanted, as_json)
            if text:
                faults.append(Fault(short(f"{where}: {key}"), text))
            count += not text
    return faults, count


def _fault(key: str, found: Mapping[str, Value], wanted: Mapping[str, Value], as_json: bool) -> str:
    """What is wrong with one field; "" if nothing is."""
    if key not in wanted:
        return f"is {_shown(found[key])}, and neither source nor rule has it"
    if key not in found:
        return f"is missing, must be {_shown(wanted[key])}"
    value, must = found[key], wanted[key]
    if as_json:
        value, must = json_value(plain(value)), json_value(plain(must))
    difference = next(_differences(value, must), None)
    if difference is None:
        return ""
    inside = f" (at {difference.where})" if difference.where else ""
    return f"is {_shown(value)}, must be {_shown(must)}{inside}"


def _differences(found: Value, wanted: Value) -> Iterator[Difference]:
    return differences(found, wanted, same_tensor=_same_tensor)


def _same_tensor(found: TensorRef, wanted: TensorRef) -> bool:
    return identical(found, wanted, lambda count: None)


def _shown(value: Value) -> str:
    return short(str(plain(value)))

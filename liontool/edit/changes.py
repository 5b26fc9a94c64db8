"""What is different between two drafts, for people: values, and names folded by template."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import walk
from liontool.checkpoint.model import Fields, Optimizer
from liontool.checkpoint.plain_values import plain
from liontool.edit.draft import Draft, Weights
from liontool.edit.patterns import state_name
from liontool.edit.report import Change
from liontool.inspect.templates import folded, template

_Named = Mapping[str, TensorRef]


def changes(before: Draft, after: Draft) -> tuple[Change, ...]:
    """Groups and schedulers first, then names, state, weights and metadata."""
    return (
        *_groups(before, after),
        *_schedulers(before, after),
        *_names(before, after),
        *_tensors("state", _states(before), _states(after)),
        *(
            change
            for old, new in zip(before.weights, after.weights, strict=True)
            if old is not new
            for change in _tensors("weight", _weights(old), _weights(new))
        ),
        *_values("metadata", "meta.", before.metadata or {}, after.metadata or {}),
    )


def _groups(before: Draft, after: Draft) -> Iterator[Change]:
    for prefix, old, new in _optimizers(before, after):
        for index, (one, other) in enumerate(zip(old.groups, new.groups, strict=True)):
            where = f"{prefix}groups.{index}."
            yield from _fields("group", where, one.fields, other.fields)
            if one.params != other.params and len(one.params) != len(other.params):
                yield Change("group", f"{where}params", len(one.params), len(other.params))


def _optimizers(before: Draft, after: Draft) -> Iterator[tuple[str, Optimizer, Optimizer]]:
    pairs = zip(before.checkpoint.optimizers, after.checkpoint.optimizers, strict=True)
    several = len(before.checkpoint.optimizers) > 1
    return ((f"{old.label}." * several, old, new) for old, new in pairs)


def _schedulers(before: Draft, after: Draft) -> Iterator[Change]:
    pairs = [
        (one, other)
        for _, old, new in _optimizers(before, after)
        for one, other in zip(walk(old.schedulers), walk(new.schedulers), strict=True)
    ]
    loose = (walk(draft.checkpoint.loose_schedulers) for draft in (before, after))
    for one, other in (*pairs, *zip(*loose, strict=True)):
        yield from _fields("scheduler", f"{one.label or 'scheduler'}.", one.fields, other.fields)


def _fields(kind: str, where: str, before: Fields, after: Fields) -> Iterator[Change]:
    if before is after:
        return
    # Names of parameters are shown as names, not as one long list.
    old, new = before.without("param_names"), after.without("param_names")
    changed = {name for name in {**old, **new} if old.get(name) is not new.get(name)}
    olds = {name: plain(value) for name, value in old.items() if name in changed}
    news = {name: plain(value) for name, value in new.items() if name in changed}
    yield from _values(kind, where, olds, news)


def _values(
    kind: str, where: str, before: Mapping[str, Any], after: Mapping[str, Any]
) -> Iterator[Change]:
    for name in {**before, **after}:
        if name not in before or name not in after or before[name] != after[name]:
            yield Change(kind, f"{where}{name}", before.get(name), after.get(name))


def _names(before: Draft, after: Draft) -> Iterator[Change]:
    """Parameters and weights that are called otherwise, each once, and names that are new."""
    pairs: dict[tuple[str, str], None] = {}
    for prefix, old, new in _optimizers(before, after):
        for index, (one, other) in enumerate(zip(old.groups, new.groups, strict=True)):
            if not one.names and other.names:
                where = f"{prefix}groups.{index}.param_names"
                yield Change("name", where, None, _pattern(other.names), len(other.names))
            elif len(one.names) == len(other.names):
                pairs.update(dict.fromkeys(zip(one.names, other.names, strict=True)))
        pairs.update(dict.fromkeys(_slot_names(old, new)))
    for holder, changed in zip(before.weights, after.weights, strict=True):
        names = {weight.key: weight.name for weight in changed.weights}
        pairs.update(((w.name, names[w.key]), None) for w in holder.weights if w.key in names)
    yield from _pairs("name", [(old, new) for old, new in pairs if old != new])


def _slot_names(before: Optimizer, after: Optimizer) -> Iterator[tuple[str, str]]:
    """Names before and after of parameters that are told by their state."""
    now = {id(tensor): slot for slot in after.slots.values() for _, tensor in slot.tensors()}
    for slot in before.slots.values():
        for _, tensor in slot.tensors():
            if id(tensor) in now and slot.name and now[id(tensor)].name:
                yield slot.label, now[id(tensor)].label


def _states(draft: Draft) -> _Named:
    return {
        state_name(draft, optimizer, slot, field): tensor
        for optimizer in draft.checkpoint.optimizers
        for slot in optimizer.slots.values()
        for field, tensor in slot.tensors()
    }


def _weights(holder: Weights) -> _Named:
    return {weight.name: weight.tensor for weight in holder.weights}


def _tensors(kind: str, before: _Named, after: _Named) -> Iterator[Change]:
    new_ids = {id(tensor) for tensor in after.values()}
    old_ids = {id(tensor) for tensor in before.values()}
    gone: dict[str, str] = {}
    made: dict[str, str] = {}
    other: dict[str, tuple[str, str]] = {}
    for name, tensor in before.items():
        if id(tensor) in new_ids:
            continue  # that it has another name is said of its parameter
        if name in after and id(after[name]) not in old_ids:
            other[name] = (_described(tensor), _changed(tensor, after[name]))
        else:
            gone[name] = _described(tensor)
    for name, tensor in after.items():
        if name not in before and id(tensor) not in old_ids:
            made[name] = _described(tensor)
    yield from (Change(kind, w, d, None, n) for w, d, n in _folded(gone))
    yield from (Change(kind, w, None, d, n) for w, d, n in _folded(made))
    for where, (old, new), count in _folded(other):
        yield Change(kind, where, old, new, count)


def _described(tensor: TensorRef) -> str:
    return tensor.dtype


def _changed(before: TensorRef, after: TensorRef) -> str:
    same = before.dtype == after.dtype
    return f"{after.dtype}, other values" if same else after.dtype


def _pairs(kind: str, pairs: Sequence[tuple[str, str]]) -> Iterator[Change]:
    """Names and what they have become, one line for each template."""
    found: dict[tuple[str, str], list[tuple[str, str]]] = {}
    for old, new in pairs:
        found.setdefault((template(old), template(new)), []).append((old, new))
    for same in found.values():
        old, new = _pattern([a for a, _ in same]), _pattern([b for _, b in same])
        yield Change(kind, old, old, new, len(same))


def _folded(values: Mapping[str, Any]) -> Iterator[tuple[str, Any, int]]:
    """Names of one template and one value as one pattern."""
    found: dict[tuple[str, Any], list[str]] = {}
    for name, value in values.items():
        found.setdefault((template(name), value), []).append(name)
    for (_, value), names in found.items():
        yield _pattern(names), value, len(names)


def _pattern(names: Sequence[str]) -> str:
    return ", ".join(fold.pattern for fold in folded(names))

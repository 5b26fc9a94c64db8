"""How the hyperparameters and schedulers of two checkpoints differ; pure data, reads no tensor.

Groups are matched by the names of their parameters where both sides know them, else by position;
schedulers by position. Numbers are compared exactly, but one that lies in a float32 tensor is the
same as the number that rounds to it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from liontool.checkpoint.document import Opaque, TensorRef, Value
from liontool.checkpoint.learning_rates import describe
from liontool.checkpoint.model import Checkpoint, Fields, Optimizer, ParamGroup, Scheduler
from liontool.checkpoint.plain_values import json_value, plain
from liontool.inspect.diff_parameters import Partners, partners
from liontool.states import recognise

CHANGED, REMOVED, ADDED = "changed", "removed", "added"
RUN, GROUP, STATE, SCHEDULER = "run", "group", "state", "scheduler"

_SMALL = 64
"""Elements up to which a tensor among the hyperparameters is compared by its numbers."""
_NOT_FIELDS = frozenset({"params", "param_names"})
_MISSING = object()


@dataclass(frozen=True)
class FieldDifference:
    """One value that is not the same on both sides.

    Attributes:
        part: "run", "group", "state" or "scheduler".
        where: "groups.0", "optimizers.1.groups.0", "scheduler.1"; "" for the run.
        field: Name of the value: "lr", "T_max", "class".
        change: "changed", "removed" (only in A) or "added" (only in B).
        a: The value in A as plain data; None where there is none.
        b: The value in B.
    """

    part: str
    where: str
    field: str
    change: str
    a: Any
    b: Any

    @property
    def factor(self) -> float | None:
        """By what A's number, or every number of A's list, is multiplied to give B's."""
        factors = list(_factors(self.a, self.b))
        if not factors or any(not math.isclose(f, factors[0], rel_tol=1e-6) for f in factors):
            return None
        return factors[0]


@dataclass(frozen=True)
class FieldsDiff:
    """All that differs in hyperparameters and schedulers.

    Attributes:
        differences: Every value that differs, in the order: run, groups, state, schedulers.
        groups: How many pairs of groups were compared.
        notes: How things were matched, where that is not plain.
    """

    differences: tuple[FieldDifference, ...]
    groups: int = 0
    notes: tuple[str, ...] = ()

    def of(self, *parts: str) -> tuple[FieldDifference, ...]:
        """Those of some parts."""
        return tuple(one for one in self.differences if one.part in parts)


def compare_fields(
    a: Checkpoint | None, b: Checkpoint | None, matched: Sequence[Partners] | None = None
) -> FieldsDiff:
    """Compare everything of two checkpoints but tensors.

    Args:
        a: The one before, or None where a file holds no optimizer.
        b: The one after.
        matched: Which parameters of each pair of optimizers belong together; None to find out.
    """
    if a is None or b is None:
        return FieldsDiff(tuple(_one_sided(a, b)))
    if matched is None:
        matched = tuple(map(partners, a.optimizers, b.optimizers))
    found = list(_run(a, b))
    several = max(len(a.optimizers), len(b.optimizers)) > 1
    notes: list[str] = []
    groups = 0
    for index, (old, new) in enumerate(zip_longest(a.optimizers, b.optimizers)):
        prefix = f"optimizers.{index}." if several else ""
        if old is None or new is None:
            found.append(_presence(RUN, "", f"optimizers.{index}", _kind(old), _kind(new)))
            continue
        pairs, more = _group_pairs(old, new)
        groups += sum(None not in pair for pair in pairs)
        notes += [prefix + note for note in more]
        found += _optimizer(old, new, prefix, pairs, matched[index])
    found += _schedulers(_all_schedulers(a), _all_schedulers(b))
    return FieldsDiff(tuple(found), groups, tuple(notes))


def _one_sided(a: Checkpoint | None, b: Checkpoint | None) -> Iterator[FieldDifference]:
    """A file of weights has neither optimizer nor schedule."""
    if a is not None or b is not None:
        kinds = [None if one is None else _kinds(one) for one in (a, b)]
        yield _presence(RUN, "", "optimizer", *kinds)


def _kinds(checkpoint: Checkpoint) -> str:
    return ", ".join(str(_kind(optimizer)) for optimizer in checkpoint.optimizers)


def _kind(optimizer: Optimizer | None) -> str | None:
    if optimizer is None:
        return None
    groups = (group.fields for group in optimizer.groups)
    return recognise(groups, (slot.state.keys() for slot in optimizer.slots.values())).kind


def _presence(part: str, where: str, field: str, a: Any, b: Any) -> FieldDifference:
    change = CHANGED if None not in (a, b) else REMOVED if b is None else ADDED
    return FieldDifference(part, where, field, change, a, b)


def _run(a: Checkpoint, b: Checkpoint) -> Iterator[FieldDifference]:
    """Step and epoch; what one side does not tell is no difference."""
    for field, old, new in (("step", a.step, b.step), ("epoch", a.epoch, b.epoch)):
        if None not in (old, new) and old != new:
            yield FieldDifference(RUN, "", field, CHANGED, old, new)


def _optimizer(
    a: Optimizer,
    b: Optimizer,
    prefix: str,
    pairs: Sequence[tuple[int | None, int | None]],
    matched: Partners,
) -> Iterator[FieldDifference]:
    if _kind(a) != _kind(b):
        yield FieldDifference(RUN, "", f"{prefix}class", CHANGED, _kind(a), _kind(b))
    for old, new in pairs:
        where = f"{prefix}groups.{new if old is None else old}"
        if old is None or new is None:
            sizes = [_size(o, i) for o, i in ((a, old), (b, new))]
            yield _presence(GROUP, where, "parameters", *sizes)
            continue
        yield from _group(a.groups[old], b.groups[new], where)
    yield from _states(a, b, prefix, matched)


def _size(optimizer: Optimizer, index: int | None) -> int | None:
    return None if index is None else len(optimizer.groups[index].params)


def _group(a: ParamGroup, b: ParamGroup, where: str) -> Iterator[FieldDifference]:
    if len(a.params) != len(b.params):
        sizes = len(a.params), len(b.params)
        yield FieldDifference(GROUP, where, "parameters", CHANGED, *sizes)
    yield from _fields(GROUP, where, a.fields, b.fields)


def _group_pairs(
    a: Optimizer, b: Optimizer
) -> tuple[list[tuple[int | None, int | None]], list[str]]:
    """Which groups belong together, and what to say of it."""
    by_name = _groups_by_name(a, b)
    if by_name is None:
        indices = zip_longest(range(len(a.groups)), range(len(b.groups)))
        return list(indices), []
    taken = set(by_name.values())
    pairs: list[tuple[int | None, int | None]] = [
        (index, by_name.get(index)) for index in range(len(a.groups))
    ]
    pairs += [(None, index) for index in range(len(b.groups)) if index not in taken]
    notes = [
        f"group {old} of A is group {new} of B, by the names of its parameters"
        for old, new in by_name.items()
        if old != new
    ]
    return pairs, notes


def _groups_by_name(a: Optimizer, b: Optimizer) -> dict[int, int] | None:
    """The group of B that shares most names with each of A; None where names are not known."""
    named = [group for one in (a, b) for group in one.groups if group.params]
    if not named or not all(group.names for group in named):
        return None
    home = {name: index for index, group in enumerate(b.groups) for name in group.names}
    shared: dict[tuple[int, int], int] = {}
    for index, group in enumerate(a.groups):
        for name in group.names:
            if name in home:
                pair = index, home[name]
                shared[pair] = shared.get(pair, 0) + 1
    if not shared:
        return None
    found: dict[int, int] = {}
    for old, new in sorted(shared, key=lambda pair: (-shared[pair], pair)):
        if old not in found and new not in found.values():
            found[old] = new
    return dict(sorted(found.items()))


def _states(
    a: Optimizer, b: Optimizer, prefix: str, matched: Partners
) -> Iterator[FieldDifference]:
    """Plain numbers in the state of parameters: a `step` that is no tensor, for one."""
    for old_key, new_key in matched.keys.items():
        old, new = a.slots.get(old_key), b.slots.get(new_key)
        if old is None or new is None:
            continue
        names = [name for name in old.state if has_plain(name, old.state, new.state)]
        names += [n for n in new.state if n not in old.state and has_plain(n, new.state)]
        if names:
            where = f"{prefix}state.{old.name or new.label}"
            sides = [Fields({n: s[n] for n in names if n in s}) for s in (old.state, new.state)]
            yield from _fields(STATE, where, *sides)


def has_plain(name: str, *states: Mapping[str, Value]) -> bool:
    """Whether some of the states hold `name` as a plain value, not as a tensor."""
    return any(name in state and not isinstance(state[name], TensorRef) for state in states)


def _all_schedulers(checkpoint: Checkpoint) -> tuple[Scheduler, ...]:
    driving = (one for optimizer in checkpoint.optimizers for one in optimizer.schedulers)
    return (*driving, *checkpoint.loose_schedulers)


def _schedulers(a: Sequence[Scheduler], b: Sequence[Scheduler]) -> Iterator[FieldDifference]:
    several = max(len(a), len(b)) > 1
    for index, (old, new) in enumerate(zip_longest(a, b)):
        yield from _scheduler(old, new, f"schedulers.{index}" if several else "scheduler")


def _scheduler(a: Scheduler | None, b: Scheduler | None, where: str) -> Iterator[FieldDifference]:
    kinds = [None if one is None else describe(one).name for one in (a, b)]
    if a is None or b is None or kinds[0] != kinds[1]:
        yield _presence(SCHEDULER, where, "class", *kinds)
    if a is None or b is None:
        return
    yield from _fields(SCHEDULER, where, a.fields, b.fields)
    for index, (old, new) in enumerate(zip_longest(a.children, b.children)):
        yield from _scheduler(old, new, f"{where}.{index}")


def _fields(
    part: str, where: str, a: Mapping[str, Value], b: Mapping[str, Value]
) -> Iterator[FieldDifference]:
    for name in dict.fromkeys((*a, *b)):
        if name in _NOT_FIELDS:
            continue
        old, new = a.get(name, _MISSING), b.get(name, _MISSING)
        if old is _MISSING:
            yield FieldDifference(part, where, str(name), ADDED, None, _shown(new))
        elif new is _MISSING:
            yield FieldDifference(part, where, str(name), REMOVED, _shown(old), None)
        elif not _same(old, new):
            yield FieldDifference(part, where, str(name), CHANGED, _shown(old), _shown(new))


def _same(a: Value, b: Value) -> bool:
    if a is b or _shown(a) == _shown(b):
        return True
    return _rounds_to(a, b) or _rounds_to(b, a)


def _rounds_to(tensor: Value, number: Value) -> bool:
    """Whether a number in a tensor is what a Python float becomes in it."""
    if not isinstance(tensor, TensorRef) or tensor.numel != 1 or not isinstance(number, float):
        return False
    from liontool.checkpoint.values import from_scalars, is_float, scalar

    if not is_float(tensor.dtype) or tensor.dtype == "float8_e8m0fnu":
        return False
    return scalar(tensor) == scalar(from_scalars(tensor.dtype, [number]))


def _shown(value: Value) -> Any:
    """Plain data in which JSON's types alone occur, so that all containers compare alike."""
    if isinstance(value, TensorRef):
        return json_value(_numbers(value))
    if isinstance(value, Opaque):
        return {f"<{value.name}>": json_value(plain([value.arguments, value.state]))}
    return json_value(plain(value))


def _numbers(tensor: TensorRef) -> Any:
    """The numbers of a small tensor, the description of a large one."""
    if not 1 < tensor.numel <= _SMALL:
        return plain(tensor)
    from liontool.checkpoint.values import blocks

    return [number for block in blocks(tensor) for number in block.tolist()]


def _factors(a: Any, b: Any) -> Iterator[float]:
    """B's numbers by A's, those that are 0 on both sides left out; NaN where there is no factor."""
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        for old, new in zip(a, b, strict=True):
            yield from _factors(old, new)
    elif not _is_number(a) or not _is_number(b):
        yield math.nan
    elif a != 0:
        yield _divided(b, a)
    elif b != 0:
        yield math.nan


def _divided(a: float, b: float) -> float:
    try:
        return a / b
    except OverflowError:  # integers beyond every float
        return math.nan


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)

"""Numbers that form one curve and must change together: learning rates, or weight decays.

A word gives each parameter group a Move. Every number of the group takes part in it, and so does
what schedulers keep for that group, however deep they are nested.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from liontool.checkpoint.document import Value, is_tuple
from liontool.checkpoint.learning_rates import changed, describe, number, walk
from liontool.checkpoint.model import Fields, Scheduler
from liontool.errors import EditError


@dataclass(frozen=True)
class Move:
    """What happens to all numbers of a group: times `factor`.

    Attributes:
        factor: By what they are multiplied; 1 leaves them alone.
        base: The number that becomes `value` without a rounding on the way.
        value: What it becomes.
    """

    factor: float
    base: float | None = None
    value: float = 0.0

    def __call__(self, old: float) -> float:
        return self.value if old == self.base else old * self.factor


STAY = Move(1.0)

Moves = Sequence[Move | None]
"""One Move for each group; None for a group whose numbers are all 0, which fits any."""

Keys = Callable[[Scheduler], Sequence[str]]


def moved(value: Value, move: Move) -> Value:
    """`value` with every number in it moved; the same object where nothing changes."""
    return value if move.factor == 1 else changed(value, move)


def moved_group(fields: Fields, names: Sequence[str], move: Move | None) -> Fields:
    """A group with what it keeps under `names` moved."""
    if move is None:
        return fields
    return _put(fields, {name: moved(fields[name], move) for name in names if name in fields})


def moved_scheduler(scheduler: Scheduler, keys: Keys, moves: Moves) -> Scheduler:
    """A scheduler and all that are nested in it with every number moved.

    A number that all groups share stays where they move differently; see `shared`.
    """
    return replace(
        scheduler,
        fields=_put(
            scheduler.fields,
            {name: _moved_field(scheduler, name, moves) for name in keys(scheduler)},
        ),
        children=tuple(moved_scheduler(child, keys, moves) for child in scheduler.children),
    )


def shared(schedulers: Sequence[Scheduler], keys: Keys, moves: Moves) -> list[tuple[str, float]]:
    """Where one number stands for groups that move differently, and the number."""
    if _common(moves) is not None:
        return []
    return [
        (f"{name} of {describe(scheduler).name}", found)
        for scheduler in walk(schedulers)
        for name in keys(scheduler)
        if (found := number(scheduler.fields[name]))
    ]


def _put(fields: Fields, values: dict[str, Value]) -> Fields:
    changes = {name: value for name, value in values.items() if value is not fields[name]}
    return fields.replaced(changes) if changes else fields


def _moved_field(scheduler: Scheduler, name: str, moves: Moves) -> Value:
    value, common = scheduler.fields[name], _common(moves)
    if common is not None:
        return moved(value, common)
    if not isinstance(value, Sequence) or isinstance(value, str):
        return value
    if len(value) != len(moves):
        raise EditError(
            f"{scheduler.label or 'the scheduler'} has {len(value)} {name} for {len(moves)} "
            "groups, so which is whose cannot be told; change all alike, as lr=x0.5 does"
        )
    items = [moved(item, move or STAY) for item, move in zip(value, moves, strict=True)]
    return tuple(items) if is_tuple(value) else items


def _common(moves: Moves) -> Move | None:
    """The Move of all groups, if there is one."""
    given = [move for move in moves if move is not None]
    return given[0] if len({move.factor for move in given}) == 1 else None

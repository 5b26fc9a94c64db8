"""`lr` and `weight_decay` as curves: where their numbers stand, and which of them is the base.

The base of a group is the highest of `initial_lr`, `max_lr` and the `max_lrs` of its schedulers, or
`lr` where there are none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liontool.checkpoint import learning_rates
from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import number, walk
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.edit.words import Scale, Set


@dataclass(frozen=True)
class Curve:
    """Numbers of a group and of schedulers that move together.

    Attributes:
        name: The word, and the key of the present value.
        title: What to call it.
        group_keys: All keys of a group that take part.
        base_keys: Those of them that tell the base, if it is not the present value.
        tops: Fields of schedulers that tell the base, one number a group.
        scheduler_keys: The fields of a scheduler that take part.
        floors: Those of them under which the curve does not fall, one number for all groups.
        spares_zero: Whether a value for all groups passes over groups that have 0.
    """

    name: str
    title: str
    group_keys: tuple[str, ...]
    base_keys: tuple[str, ...]
    tops: tuple[str, ...]
    scheduler_keys: Callable[[Scheduler], Sequence[str]]
    floors: tuple[str, ...]
    spares_zero: bool = False


LR = Curve(
    "lr",
    "learning rate",
    (*learning_rates.GROUP_KEYS, *learning_rates.REFERENCE_KEYS),
    ("initial_lr", "max_lr"),
    ("max_lrs",),
    learning_rates.rate_keys,
    ("eta_min",),
)
WEIGHT_DECAY = Curve(
    "weight_decay",
    "weight decay",
    ("weight_decay", "initial_weight_decay"),
    ("initial_weight_decay",),
    (),
    learning_rates.decay_keys,
    (),
    spares_zero=True,
)


def meant(optimizer: Optimizer, curve: Curve, word: Set | Scale) -> list[int]:
    """The groups that the word changes."""
    there = [i for i, group in enumerate(optimizer.groups) if curve.name in group.fields]
    if word.group is not None:
        return [word.group]
    if curve.spares_zero and isinstance(word, Set):
        there = [i for i in there if base(optimizer, i, curve)] or there
    return there


def base(optimizer: Optimizer, index: int, curve: Curve) -> float:
    """What a value in a word stands for."""
    fields = optimizer.groups[index].fields
    tops = [number(fields.get(name)) for name in curve.base_keys]
    for scheduler in walk(optimizer.schedulers):
        tops += [_one_of(scheduler.fields.get(name), index) for name in curve.tops]
    return max((top for top in tops if top), default=0.0) or number(fields.get(curve.name)) or 0.0


def _one_of(value: Value, index: int) -> float | None:
    """The number of one group from a list with one for each."""
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))
    return number(value[index]) if is_list and index < len(value) else None

"""What a rule is told of a scheduler, and what it tells: the course of one group's rate."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Fields, Scheduler

UNKNOWN = math.nan
"""A learning rate that the file does not tell."""

STAYS = "stays"
ON = "goes on"
FAILS = "fails"
WAITS = "waits for a metric"
CODE = "is code"
"""What a scheduler does beyond what is worth drawing."""


class NotTold(Exception):
    """A field that the rule needs is not in the file, or is no number."""


@dataclass(frozen=True)
class Setting:
    """One scheduler as it drives one group.

    Attributes:
        scheduler: Its saved state.
        group: The group's fields.
        index: The group's.
        epoch: How often the scheduler was stepped.
        factor: What a framework's code multiplies base_lrs with, and its last step; None where
            that is not known.
    """

    scheduler: Scheduler
    group: Fields
    index: int
    epoch: int
    factor: tuple[Callable[[int], float], int] | None = None

    def number(self, name: str) -> float:
        """A number of the scheduler's state."""
        return told(self.scheduler.fields.get(name), name)

    def count(self, name: str) -> int:
        """A whole number of the scheduler's state, 0 or more."""
        found = self.number(name)
        if found < 0 or found != int(found):
            raise NotTold(f"{name} is {found:g}, no count")
        return int(found)

    def own(self, name: str) -> float:
        """That of the numbers in `name` that is meant for this group."""
        values = self.scheduler.fields.get(name)
        if not isinstance(values, Sequence) or self.index >= len(values):
            raise NotTold(f"it has no {name} for group {self.index}")
        return told(values[self.index], name)

    def of_group(self, name: str) -> float:
        """A number of the group."""
        if name not in self.group:
            raise NotTold(f"group {self.index} has no {name}")
        return told(self.group[name], name)

    @property
    def base(self) -> float:
        """The initial learning rate that the scheduler has noted down."""
        return self.own("base_lrs")


@dataclass(frozen=True)
class Course:
    """Where one group's learning rate goes.

    Attributes:
        after: The rate `n` steps after `epoch`, where it is `lr`.
        start: The rate when a SequentialLR switches to this scheduler at `lr`.
        span: Steps from the setting's epoch on that are worth drawing.
        then: What it does beyond them.
        corners: Steps from the setting's epoch on where the curve has a corner.
        product: Whether it multiplies the rate that is there, whatever that is.
        forgets: Steps from the setting's epoch on until the rate that the group had there counts
            for nothing; `math.inf` where it always counts, NaN where that is not known.
        keeps: Whether the rate at the start is the one that is there.
    """

    after: Callable[[float, int, int], float]
    start: Callable[[float], float]
    span: int
    then: str = STAYS
    corners: tuple[int, ...] = ()
    product: bool = False
    forgets: float = math.inf
    keeps: bool = False


def told(value: Value, name: str) -> float:
    found = number(value)
    if found is None or not math.isfinite(found):
        raise NotTold(f"it has no number {name}")
    return found

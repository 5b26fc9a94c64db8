"""Where a run ends."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Goal:
    """So many steps, or so many passes over the data; one of the two is given.

    Raises:
        ValueError: Both or neither, or no whole number from 1.
    """

    steps: int | None
    epochs: int | None

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either steps= or epochs=: how long the run is to be")
        for name, value in (("steps", self.steps), ("epochs", self.epochs)):
            if value is not None and (type(value) is not int or value < 1):
                raise ValueError(f"{name} must be a whole number from 1, got {value!r:.80}")

    def is_reached(self, step: int, epoch: int) -> bool:
        """Whether the run ends here."""
        if self.steps is not None:
            return step >= self.steps
        assert self.epochs is not None
        return epoch >= self.epochs

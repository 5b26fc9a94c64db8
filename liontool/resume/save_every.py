"""When a save is due: after a number of steps, or after a time."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from dataclasses import dataclass

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = re.compile(r"(\d+(?:\.\d+)?)([smh])")


@dataclass(frozen=True)
class SaveEvery:
    """How often a run saves; one of the two is given.

    Attributes:
        steps: At each multiple of this many steps.
        seconds: This long after the last save began.
    """

    steps: int | None = None
    seconds: float | None = None

    @classmethod
    def of(cls, value: object) -> SaveEvery:
        """What `Run(save_every=...)` was given.

        Raises:
            ValueError: Neither a number of steps nor a time.
        """
        if type(value) is int and value > 0:
            return cls(steps=value)
        match = _TIME.fullmatch(value) if isinstance(value, str) else None
        seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
        if not 0 < seconds < math.inf:
            raise ValueError(
                "save_every must be a number of steps from 1, or a time such as '60s', '10m' or "
                f"'2h', got {value!r:.80}"
            )
        return cls(seconds=seconds)


class Schedule:
    """Remembers the last save, and knows from it when the next one is due.

    Args:
        every: How often.
        step: Where the run stands.
        clock: Seconds that only grow.
    """

    def __init__(
        self, every: SaveEvery, step: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._every = every
        self._clock = clock
        self.saved(step)

    def is_due(self, step: int) -> bool:
        """Whether a save of this step should begin."""
        if self._every.steps is not None:
            return step // self._every.steps > self._step // self._every.steps
        assert self._every.seconds is not None
        return step > self._step and self._clock() - self._time >= self._every.seconds

    def saved(self, step: int) -> None:
        """A save of this step has begun, whatever becomes of it."""
        self._step = step
        self._time = self._clock()

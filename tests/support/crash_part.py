"""What a part of the crash tests found."""

from __future__ import annotations

import os
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

MOST_PROBLEMS = 20


@dataclass
class Part:
    """Counts of what was tried, and a line for everything that was not as promised.

    Attributes:
        name: What was tried.
        seed: Of the random choices.
        counts: How often what happened.
        problems: Each difference from the promise; none may be here.
        seconds: How long it took, once the `with` is left.
    """

    name: str
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def __enter__(self) -> Part:
        self.seconds = -time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds += time.monotonic()

    def problem(self, text: str) -> None:
        """Take note of a difference; AssertionError when there are too many to be of use."""
        self.problems.append(text)
        if len(self.problems) >= MOST_PROBLEMS:
            raise AssertionError("\n".join(self.problems))


def memory_folder() -> Path:
    """A new folder in memory, or elsewhere where there is no such place."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="liontool-crash-", dir=place))

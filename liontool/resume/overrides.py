"""What the program overrides, against what earlier starts have overridden already.

A script that is started again and again has the same overrides each time. They are a change that is
made once: what schedules did to the learning rate since then stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from liontool.checkpoint.tagged_tree import Json
from liontool.resume.config import config_tree


@dataclass(frozen=True)
class Overrides:
    """Values by name: "lr", "weight_decay" ...

    Attributes:
        given: Those of the program.
        done: Those that the checkpoint has, as run.json tells them.
    """

    given: Mapping[str, Any] = field(default_factory=dict)
    done: Mapping[str, Json] = field(default_factory=dict)

    @property
    def new(self) -> dict[str, Any]:
        """Those that are still to be made."""
        kept = self._kept()
        return {
            name: value
            for name, value in self.given.items()
            if name not in self.done or self.done[name] != kept[name]
        }

    @property
    def in_force(self) -> dict[str, Json]:
        """All that hold once the new ones are made, for run.json."""
        return {**self.done, **self._kept()}

    def number_before(self, name: str) -> float | None:
        """The number that an earlier start set; None if none did."""
        value = self.done.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def begun_again(self, name: str) -> Overrides:
        """The same where the checkpoint's value is not taken."""
        done = {other: value for other, value in self.done.items() if other != name}
        return replace(self, done=done)

    def _kept(self) -> dict[str, Json]:
        found = config_tree(dict(self.given), "overrides")
        assert isinstance(found, dict)
        return found

"""What a conversion is asked to do, checked once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from liontool.states import LIONS, Lion, lion_of

_MOST_RATIO = 1_000_000
DEFAULT_BETAS = (0.9, 0.99)
TARGETS = ("lion", "lion-sf")
MOMENTA = ("copy", "scaled", "zeros")
DECAYS = ("scaled", "kept", "decoupled")
ALLOWABLE = ("nonfinite", "shape-mismatch", "unknown-optimizer", "maximize")
"""Refusals that `--allow` can override."""


@dataclass(frozen=True)
class Settings:
    """How AdamW becomes Lion.

    Attributes:
        ratio: What every absolute learning rate is divided by.
        to: "lion" or "lion-sf".
        package: The Lion that will load the result, a key of `states.LIONS`.
        momentum: "copy", "scaled" or "zeros"; "" takes what is best for the package.
        betas: Lion's betas.
        decay: What happens to the weight decay: "scaled" (times the ratio), "kept", or "decoupled"
            (for a Lion that decays by weight_decay * lr / max_lr).
        zero_stale: Write zeros where AdamW had stopped moving an element.
        allow: Refusals to override, of `ALLOWABLE`.

    Raises:
        ValueError: A value is outside what is allowed, or two of them exclude each other.
    """

    ratio: float
    to: str = "lion"
    package: str = "liontool"
    momentum: str = ""
    betas: tuple[float, float] = DEFAULT_BETAS
    decay: str = "scaled"
    zero_stale: bool = False
    allow: Collection[str] = ()

    def __post_init__(self) -> None:
        number = isinstance(self.ratio, (int, float)) and not isinstance(self.ratio, bool)
        if not number or not 1 / _MOST_RATIO <= self.ratio <= _MOST_RATIO:  # else rates overflow
            raise ValueError(
                f"lr_ratio must be a positive number up to {_MOST_RATIO:,}, or 'auto'; "
                f"got {self.ratio!r}"
            )
        _one_of("to", self.to, TARGETS)
        if self.to not in self.lion.targets:
            able = ", ".join(name for name, lion in LIONS.items() if self.to in lion.targets)
            raise ValueError(f"{self.package} has no {self.to}; choose package from: {able}")
        object.__setattr__(self, "momentum", self.momentum or self.lion.momentum)
        _one_of("momentum", self.momentum, MOMENTA)
        _one_of("decay", self.decay, DECAYS)
        if self.decay == "decoupled" and not self.lion.can_decouple:
            able = ", ".join(name for name, lion in LIONS.items() if lion.can_decouple)
            raise ValueError(f"the decay of {self.package} always contains lr; these can: {able}")
        for name in self.allow:
            _one_of("allow", name, ALLOWABLE)
        _check_betas(self.betas)
        object.__setattr__(self, "betas", tuple(self.betas))  # as torch has them
        if self.zero_stale and self.momentum == "zeros":
            raise ValueError("zero_stale is about a momentum that is kept, and momentum is 'zeros'")

    @property
    def lion(self) -> Lion:
        """What the package needs in a file."""
        return lion_of(self.package)


def _one_of(name: str, value: str, allowed: Collection[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}; got '{value}'")


def _check_betas(betas: tuple[float, float]) -> None:
    if len(betas) != 2:
        raise ValueError(f"betas must be two numbers, got {len(betas)}")
    for i, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"betas[{i}] must lie in [0, 1), got {beta}")

"""How much smaller Lion's steady momentum is than Adam's first moment."""

from __future__ import annotations

from math import sqrt

from liontool.measure.adam_moments import bias

CORRECTED_BELOW = 50
"""From this step on Adam's bias correction is within 1 % of nothing."""


def kappa(adam_beta1: float, lion_beta2: float) -> float:
    """What brings the noise of Adam's average down to that of Lion's steady one."""
    lion = (1 - lion_beta2) / (1 + lion_beta2)
    adam = (1 - adam_beta1) / (1 + adam_beta1)
    return sqrt(lion / adam)


def scale_factor(adam_beta1: float, step: float | None, lion_beta2: float) -> float:
    """`kappa`, with Adam's bias correction while that still matters."""
    early = step is not None and step < CORRECTED_BELOW
    return kappa(adam_beta1, lion_beta2) / (bias(adam_beta1, step) if early else 1.0)

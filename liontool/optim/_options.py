"""The one place where an optimizer's options are checked, in torch's words."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Any

from torch import Tensor

AGREEMENTS = ("tensor", "group", "tensor_signed", "group_signed")


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError if the options of a group cannot be meant.

    Args:
        options: Options by name: the defaults of an optimizer, or a whole parameter group.
    """
    lr, betas = options["lr"], options["betas"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(lr.shape)}")
    _at_least_zero("learning rate", lr)
    if len(betas) != 2:
        raise ValueError(f"Invalid betas: {betas}, must be two numbers")
    for index, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}, must lie in [0, 1)")
    for name in ("weight_decay", "horizon", "pow"):
        if options.get(name) is not None:
            _at_least_zero(f"{name} value", options[name])
    agreement = options.get("agreement", "tensor")
    if agreement not in AGREEMENTS:
        raise ValueError(f"Invalid agreement: {agreement!r}, choose from: {', '.join(AGREEMENTS)}")


def check_reference_lr(group: Mapping[str, Any]) -> None:
    """Raise ValueError if the weight decay would be divided by zero."""
    if group["decoupled_weight_decay"] and not 0 < group["reference_lr"] < inf:
        raise ValueError(
            f"Invalid reference_lr: {group['reference_lr']}, must be > 0 with "
            "decoupled_weight_decay=True, which divides by the first lr of the group; "
            "start with the peak lr or give the group its 'reference_lr'"
        )


def _at_least_zero(name: str, value: float | Tensor) -> None:
    if not 0 <= value < inf:
        raise ValueError(f"Invalid {name}: {value}, must be finite and >= 0")

"""What a parameter group has beside the options that are given to it."""

from __future__ import annotations

from numbers import Real
from typing import Any

from liontool.optim import _options, _scalars


def complete(group: dict[str, Any]) -> None:
    """Give a group of checked options its own counters; judge options by its parameters.

    Raises:
        ValueError: An option is not there for a parameter, or not for the first lr.
    """
    group["betas"] = tuple(float(beta) for beta in group["betas"])
    for name, value in group.items():
        # NumPy's numbers compute in their own precision, and no weights-only file takes them.
        if isinstance(value, Real) and type(value).__module__ != "builtins":
            group[name] = float(value)
    group["state_dtype"] = _options.state_dtype_name(group["state_dtype"])
    _options.check_reference_lr(group)
    for param in group["params"]:
        _options.check_dtype(param, group)
    device = _scalars.counter_device(group)
    for name in _scalars.COUNTERS:
        group[name] = _scalars.counter(group.get(name, 0), device)

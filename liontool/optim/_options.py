"""The one place where an optimizer's options are checked, in torch's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from typing import Any

import torch
from torch import Tensor

AGREEMENTS = ("tensor", "group", "tensor_signed", "group_signed")
ROUNDINGS = ("nearest", "split", "stochastic")
POLICIES = ("propagate", "skip", "raise")
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
_CHOICES = {"agreement": AGREEMENTS, "rounding": ROUNDINGS, "nonfinite": POLICIES}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

# Keras has these once for all variables.
_ONCE = (
    "global_clipnorm",
    "gradient_accumulation_steps",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
)


def check(options: Mapping[str, Any]) -> None:
    """Raise ValueError if the options of a group cannot be meant.

    Args:
        options: Options by name: the defaults of an optimizer, or a whole parameter group.
    """
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(lr.shape)}")
    _at_least_zero("learning rate", lr)
    _check_betas(options["betas"])
    for name in ("weight_decay", "pow"):
        if name in options:
            _at_least_zero(f"{name} value", options[name])
    if options.get("horizon") is not None:
        _at_least_zero("horizon value", options["horizon"])
    for name, allowed in _CHOICES.items():
        if options.get(name, allowed[0]) not in allowed:
            choices = ", ".join(allowed)
            raise ValueError(f"Invalid {name}: {options[name]!r}, choose from: {choices}")
    for name in ("cautious_factor", "ema_momentum"):
        if not 0 <= options[name] <= 1:
            raise ValueError(f"Invalid {name}: {options[name]}, must lie in [0, 1]")
    state_dtype(options["state_dtype"])
    _check_keras(options)
    _check_paths(options)


def check_once(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError if groups differ in an option that there can only be one of."""
    for group in groups[1:]:
        for name in _ONCE:
            if group[name] != groups[0][name]:
                raise ValueError(
                    f"Invalid {name}: {group[name]} in one parameter group and "
                    f"{groups[0][name]} in another, must be the same in all"
                )


def check_reference_lr(group: Mapping[str, Any]) -> None:
    """Raise ValueError if the weight decay would be divided by zero."""
    if group["decoupled_weight_decay"] and not 0 < group["reference_lr"] < inf:
        raise ValueError(
            f"Invalid reference_lr: {group['reference_lr']}, must be > 0 with "
            "decoupled_weight_decay=True, which divides by the first lr of the group; "
            "start with the peak lr or give the group its 'reference_lr'"
        )


def check_dtype(param: Tensor, group: Mapping[str, Any]) -> None:
    """Raise ValueError if an option is not there for a parameter of that dtype."""
    if param.dtype == torch.float16 and group["rounding"] != "nearest":
        raise ValueError(
            f"Invalid rounding: {group['rounding']!r} for a float16 parameter, must be 'nearest'; "
            "bfloat16 parameters can have it"
        )
    if param.is_complex() and state_dtype(group["state_dtype"]) == torch.bfloat16:
        raise ValueError(
            f"Invalid state_dtype: torch.bfloat16 for a {param.dtype} parameter, must be None or "
            "torch.float32: there is no complex bfloat16"
        )


def state_dtype(value: torch.dtype | str | None) -> torch.dtype | None:
    """The dtype of the momentum; None is the parameter's.

    Raises:
        ValueError: It is neither float32 nor bfloat16.
    """
    if value is None or value in _DTYPES.values():
        return value  # type: ignore[return-value]
    if value not in _DTYPES:
        raise ValueError(
            f"Invalid state_dtype: {value!r}, must be None, torch.float32 or torch.bfloat16"
        )
    return _DTYPES[str(value)]


def state_dtype_name(value: torch.dtype | str | None) -> str | None:
    """How a group says it: state dicts are gathered and written where a dtype is unknown."""
    dtype = state_dtype(value)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def fused(fused: bool | None, use_triton: bool | None) -> bool | None:
    """`fused`, which lion-pytorch calls `use_triton`.

    Raises:
        ValueError: Both are given and differ.
    """
    if use_triton is None:
        return fused
    if fused is not None and fused != use_triton:
        raise ValueError(
            f"Invalid use_triton: {use_triton} with fused={fused}, is another name of fused; "
            "give one"
        )
    return bool(use_triton)


def _check_betas(betas: Any) -> None:
    if len(betas) != 2:
        raise ValueError(f"Invalid betas: {betas}, must be two numbers")
    for index, beta in enumerate(betas):
        if not 0 <= beta < 1:
            raise ValueError(f"Invalid beta parameter at index {index}: {beta}, must lie in [0, 1)")


def _check_keras(options: Mapping[str, Any]) -> None:
    clips = [name for name in CLIPS if options[name] is not None]
    if len(clips) > 1:
        raise ValueError(f"Invalid {clips[1]}: {options[clips[1]]}, {clips[0]} is given too; "
                         f"at most one of {', '.join(CLIPS)}")  # fmt: skip
    for name in (*clips, "loss_scale_factor"):
        if options[name] is not None and not 0 < options[name] < inf:
            raise ValueError(f"Invalid {name}: {options[name]}, must be finite and > 0")
    for name, least in (("ema_overwrite_frequency", 1), ("gradient_accumulation_steps", 2)):
        value = options[name]
        if value is not None and (not isinstance(value, int) or value < least):
            raise ValueError(f"Invalid {name}: {value!r}, must be None or an integer >= {least}")


def _check_paths(options: Mapping[str, Any]) -> None:
    if options["fused"] and options["foreach"]:
        raise ValueError("Invalid fused: True with foreach=True, at most one can be True")
    for name in ("fused", "foreach"):
        if options[name] and options["differentiable"]:
            raise ValueError(
                f"Invalid {name}: True with differentiable=True, which only the loop can do; "
                f"leave {name} out"
            )
    if options["fused"] and 0 < options["cautious_factor"] < 1:
        raise ValueError(
            f"Invalid fused: True with cautious_factor={options['cautious_factor']}, the kernels "
            "have 0 and 1; leave fused out"
        )


def _at_least_zero(name: str, value: float | Tensor | None) -> None:
    if value is None or not 0 <= value < inf:
        raise ValueError(f"Invalid {name}: {value}, must be finite and >= 0")

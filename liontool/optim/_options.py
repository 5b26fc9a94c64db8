"""The one place where an optimizer's options are checked, in torch's words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from math import inf
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor


class _Range(NamedTuple):
    """Numbers that an option may have, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]


AGREEMENTS = ("tensor", "group", "tensor_signed", "group_signed")
ROUNDINGS = ("nearest", "split", "stochastic")
POLICIES = ("propagate", "skip", "raise")
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm")
_CHOICES = {"agreement": AGREEMENTS, "rounding": ROUNDINGS, "nonfinite": POLICIES}
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

_NOT_NEGATIVE = _Range("be finite and >= 0", lambda number: 0 <= number < inf)
_POSITIVE = _Range("be finite and > 0", lambda number: 0 < number < inf)
_SHARE = _Range("lie in [0, 1]", lambda number: 0 <= number <= 1)
_BETA = _Range("lie in [0, 1)", lambda number: 0 <= number < 1)

_NUMBERS = {
    **dict.fromkeys(("lr", "weight_decay", "pow", "horizon", "reference_lr"), _NOT_NEGATIVE),
    **dict.fromkeys(("cautious_factor", "ema_momentum"), _SHARE),
    **dict.fromkeys((*CLIPS, "loss_scale_factor"), _POSITIVE),
}
# torch says "learning rate" and "weight_decay value".
_SAID = {"lr": "learning rate"} | {
    name: f"{name} value" for name in ("weight_decay", "pow", "horizon")
}
_OFF_IS_NONE = ("horizon", *CLIPS, "loss_scale_factor")
_LEAST_INTEGERS = {"ema_overwrite_frequency": 1, "gradient_accumulation_steps": 2}
_FLAGS = (
    "decoupled_weight_decay",
    "cautious_wd",
    "maximize",
    "capturable",
    "differentiable",
    "use_ema",
)
_PATHS = ("foreach", "fused")
_INT64 = 2**63
# Options of LionSF alone.
_OF_SOME = ("pow", "agreement")

# Keras has these once for all variables.
_ONCE = (
    "global_clipnorm",
    "gradient_accumulation_steps",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
)


def check(options: Mapping[str, Any], known: Collection[str] | None = None) -> None:
    """Raise ValueError if the options of a group cannot be meant.

    Args:
        options: Options by name: the defaults of an optimizer, or a whole parameter group.
        known: Names of all options that the optimizer has; then others' options are refused too.
    """
    if known is not None:
        _refuse_others(options, known)
    lr = options["lr"]
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError(f"Tensor lr must be 1-element, got shape {tuple(lr.shape)}")
    for name, numbers in _NUMBERS.items():
        if name in options and not (name in _OFF_IS_NONE and options[name] is None):
            _check_number(_SAID.get(name, name), options[name], numbers)
    _check_betas(options["betas"])
    for name, allowed in _CHOICES.items():
        value = options.get(name, allowed[0])
        if not isinstance(value, str) or value not in allowed:
            raise ValueError(f"Invalid {name}: {_shown(value)}, choose from: {', '.join(allowed)}")
    state_dtype(options["state_dtype"])
    _check_flags(options)
    _check_integers(options)
    _check_combinations(options)


def count(name: str, value: Any) -> int:
    """A count that may have been saved as a float or a tensor, as other packages do.

    Raises:
        ValueError: It is not a whole number from 0.
    """
    number = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    if not _is_number(number) or not 0 <= number < _INT64 or number != int(number):
        raise ValueError(f"Invalid {name}: {_shown(value)}, must be a whole number >= 0")
    return int(number)


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
    if value is None:
        return None
    dtype = _DTYPES.get(value) if isinstance(value, str) else value
    if not isinstance(dtype, torch.dtype) or dtype not in _DTYPES.values():
        raise ValueError(
            f"Invalid state_dtype: {_shown(value)}, must be None, torch.float32 or torch.bfloat16"
        )
    return dtype


def state_dtype_name(value: torch.dtype | str | None) -> str | None:
    """How a group says it: state dicts are gathered and written where a dtype is unknown."""
    dtype = state_dtype(value)
    return None if dtype is None else str(dtype).removeprefix("torch.")


def fused(fused: bool | None, use_triton: bool | None) -> bool | None:
    """`fused`, which lion-pytorch calls `use_triton`.

    Raises:
        ValueError: Both are given and differ, or `use_triton` is no flag.
    """
    if use_triton is None:
        return fused
    _check_flag("use_triton", use_triton, "None, True or False")
    if fused is not None and fused != use_triton:
        raise ValueError(
            f"Invalid use_triton: {use_triton} with fused={fused}, is another name of fused; "
            "give one"
        )
    return use_triton


def _refuse_others(options: Mapping[str, Any], known: Collection[str]) -> None:
    if "use_triton" in options and "use_triton" not in known:
        raise ValueError(
            f"Invalid use_triton: {options['use_triton']!r} in a parameter group, must be 'fused' "
            "there; use_triton is an argument of the constructor alone"
        )
    for name in _OF_SOME:
        if name in options and name not in known:
            raise ValueError(
                f"Invalid {name}: {options[name]!r}, must be left out of a group of Lion; "
                "LionSF has it"
            )


def _check_betas(betas: Any) -> None:
    if not isinstance(betas, Sequence) or isinstance(betas, str) or len(betas) != 2:
        raise ValueError(f"Invalid betas: {_shown(betas)}, must be two numbers")
    for index, beta in enumerate(betas):
        _check_number(f"beta parameter at index {index}", beta, _BETA)


def _check_number(said: str, value: Any, allowed: _Range) -> None:
    if not _is_number(value):
        raise ValueError(f"Invalid {said}: {_shown(value)}, must be a number and {allowed.words}")
    if not allowed.holds(value):
        raise ValueError(f"Invalid {said}: {value}, must {allowed.words}")


def _is_number(value: Any) -> bool:
    """Whether it is one real number: Python's, numpy's, or a tensor of one element."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and value.dtype != torch.bool and not value.is_complex()
    return isinstance(value, Real) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Tensor) and value.numel() != 1:
        return f"tensor of shape {tuple(value.shape)}"
    return " ".join(repr(value).split())


def _check_flags(options: Mapping[str, Any]) -> None:
    for name in _FLAGS:
        _check_flag(name, options[name], "True or False")
    for name in _PATHS:
        if options[name] is not None:
            _check_flag(name, options[name], "None, True or False")


def _check_flag(name: str, value: Any, allowed: str) -> None:
    if not isinstance(value, bool):
        raise ValueError(f"Invalid {name}: {_shown(value)}, must be {allowed}")


def _check_integers(options: Mapping[str, Any]) -> None:
    for name, least in _LEAST_INTEGERS.items():
        if options[name] is not None and not _is_integer(options[name], least):
            raise ValueError(
                f"Invalid {name}: {_shown(options[name])}, must be None or an integer >= {least}"
            )
    seed = options.get("rounding_seed", 0)
    if not _is_integer(seed, 0) or seed >= _INT64:
        raise ValueError(
            f"Invalid rounding_seed: {_shown(seed)}, must be an integer >= 0 and < 2**63"
        )
    count("step", options.get("step", 0))
    micro_step, steps = (
        count("micro_step", options.get("micro_step", 0)),
        options.get("gradient_accumulation_steps"),
    )
    if steps is not None and micro_step >= steps:
        raise ValueError(
            f"Invalid micro_step: {micro_step}, must be < gradient_accumulation_steps={steps}; "
            "give the number of gradients that the sum was begun with, or a micro_step of 0 to "
            "forget it"
        )


def _is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _check_combinations(options: Mapping[str, Any]) -> None:
    clips = [name for name in CLIPS if options[name] is not None]
    if len(clips) > 1:
        raise ValueError(f"Invalid {clips[1]}: {options[clips[1]]}, {clips[0]} is given too; "
                         f"at most one of {', '.join(CLIPS)}")  # fmt: skip
    if options["fused"] and options["foreach"]:
        raise ValueError("Invalid fused: True with foreach=True, at most one can be True")
    for name in _PATHS:
        if options[name] and options["differentiable"]:
            raise ValueError(
                f"Invalid {name}: True with differentiable=True, which only the loop can do; "
                f"leave {name} out"
            )

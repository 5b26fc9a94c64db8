"""Which state a parameter has under the options of its group, and how it begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import _options, _sharding
from liontool.states import MOMENT


def dtypes(param: Tensor, group: Mapping[str, Any]) -> dict[str, torch.dtype]:
    """The dtype of each state by its name; what the options do not ask for is not there."""
    wide = torch.promote_types(param.dtype, torch.float32)
    moment = _options.state_dtype(group["state_dtype"]) or param.dtype
    if param.is_complex() and not moment.is_complex:
        moment = moment.to_complex()
    found = {MOMENT: moment}
    if group["rounding"] == "split" and param.dtype == torch.bfloat16:
        found["residual"] = torch.int16
    if group["gradient_accumulation_steps"] is not None:
        found["accumulator"] = wide
    if group["use_ema"]:
        found["ema"] = wide
    return found


def beginning(name: str, param: Tensor, dtype: torch.dtype) -> Tensor:
    """What a state is before the first step: the average begins as the weights, all else as 0."""
    if name == "ema":
        return param.detach().to(dtype, copy=True)
    return torch.zeros_like(param, dtype=dtype, memory_format=torch.preserve_format)


def widen_residuals(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
    """A state dict that can be sent; the hook of an optimizer that changes none of its state."""
    state = {
        key: {**entry, "residual": _sharding.gatherable(entry["residual"])}
        if isinstance(entry, dict) and "residual" in entry
        else entry
        for key, entry in saved["state"].items()
    }
    return {**saved, "state": state}

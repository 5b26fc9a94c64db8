"""Both Lions in every configuration, and short runs of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF

KINDS: dict[str, Any] = {"lion": Lion, "lion_sf": LionSF}

_BOTH: dict[str, dict[str, Any]] = {
    "default": {},
    "lr": {"lr": 0.01},
    "tensor_lr": {"lr": torch.tensor(0.01)},
    "betas": {"betas": (0.8, 0.95)},
    "weight_decay": {"lr": 0.01, "weight_decay": 0.1},
    "decoupled_weight_decay": {"lr": 0.01, "weight_decay": 0.01, "decoupled_weight_decay": True},
    "maximize": {"maximize": True},
    "maximize_decay": {"weight_decay": 0.1, "maximize": True},
    "cautious": {"cautious_factor": 0.0},
    "half_cautious": {"cautious_factor": 0.5},
    "cautious_wd": {"lr": 0.01, "weight_decay": 0.1, "cautious_wd": True},
    "split": {"rounding": "split"},
    "stochastic": {"rounding": "stochastic"},
    "state_float32": {"state_dtype": torch.float32},
    "state_bfloat16": {"state_dtype": torch.bfloat16},
    "skip": {"nonfinite": "skip"},
    "raise": {"nonfinite": "raise"},
    "capturable": {"capturable": True},
    "capturable_tensor_lr": {"lr": torch.tensor(0.01), "capturable": True},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "ema": {"use_ema": True, "ema_momentum": 0.5},
    "ema_overwrite": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "loss_scale_factor": {"loss_scale_factor": 8.0},
    "accumulation": {"gradient_accumulation_steps": 2},
    "several": {
        "lr": 0.01, "weight_decay": 0.1, "cautious_factor": 0.0, "clipvalue": 1.0,
        "rounding": "split", "state_dtype": torch.float32, "nonfinite": "skip", "use_ema": True,
        "gradient_accumulation_steps": 2, "loss_scale_factor": 2.0, "capturable": True,
    },
}  # fmt: skip

_SF: dict[str, dict[str, Any]] = {
    "pow": {"pow": 0.5},
    "group": {"agreement": "group"},
    "tensor_signed": {"agreement": "tensor_signed"},
    "group_signed": {"agreement": "group_signed", "pow": 2.0},
}

ONCE = (
    "global_clipnorm",
    "use_ema",
    "ema_momentum",
    "ema_overwrite_frequency",
    "gradient_accumulation_steps",
)
"""Options that must be equal in all groups."""

WHOLE = ("cautious_factor", "clipnorm")
"""Options that look at a tensor as a whole; cut in two, it moves otherwise."""

CASES = [(kind, name) for kind in KINDS for name in (_BOTH | (_SF if kind == "lion_sf" else {}))]
"""Each optimizer with the name of each configuration of it."""

# LionSF does in these what Lion does.
_ALIKE = """lr tensor_lr betas maximize maximize_decay half_cautious state_float32 clipvalue
    loss_scale_factor ema capturable_tensor_lr"""

FEWER_CASES = [case for case in CASES if case[0] == "lion" or case[1] not in _ALIKE.split()]
"""Without configurations of LionSF that Lion stands for."""


def configurations(kind: Any) -> dict[str, dict[str, Any]]:
    """Options by the name of the configuration; nothing in them is shared between calls."""
    named = _BOTH | (_SF if kind is LionSF else {})
    return {name: _fresh(options) for name, options in named.items()}


def _fresh(options: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.clone() if isinstance(value, Tensor) else value
        for name, value in options.items()
    }


def model(dtype: torch.dtype = torch.float32) -> torch.nn.Sequential:
    """Two linear layers, 37 weights, always the same."""
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2)).to(dtype)


def give_gradients(params: list[Parameter], seed: int = 0) -> None:
    """Random gradients; the same for the same seed, whatever the dtype."""
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
        param.grad = grad.to(param.device, param.dtype)


def parameters(optimizer: torch.optim.Optimizer) -> list[Parameter]:
    """All parameters of an optimizer."""
    return [param for group in optimizer.param_groups for param in group["params"]]


def train(optimizer: torch.optim.Optimizer, steps: int = 3, seed: int = 0) -> list[Tensor]:
    """Some steps on random gradients; returns copies of the weights."""
    params = parameters(optimizer)
    for step in range(steps):
        give_gradients(params, seed + step)
        optimizer.step()
    return [param.detach().clone() for param in params]


def snapshot(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Copies of all that a step may change: weights, state, counters."""
    found: list[Tensor] = []
    for group in optimizer.param_groups:
        found += [group["step"], group["micro_step"], *group["params"]]
        for param in group["params"]:
            state = optimizer.state.get(param, {})
            found += [state[name] for name in sorted(state)]
    return [tensor.detach().clone() for tensor in found]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    """Whether two lists of tensors are equal in bits; NaN equals NaN."""
    return len(first) == len(second) and all(map(_same, first, second))


def _same(first: Tensor, second: Tensor) -> bool:
    if first.dtype != second.dtype or first.shape != second.shape:
        return False
    return torch.equal(_bits(first), _bits(second))


def _bits(tensor: Tensor) -> Tensor:
    tensor = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)


def plain(value: Any) -> Any:
    """A state dict, or a part of one, in which `==` compares tensors by dtype and values."""
    if isinstance(value, Tensor):
        return str(value.dtype), value.tolist()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value))
    return value

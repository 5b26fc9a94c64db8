"""Files that plain training loops write under AdamW, small ones, and what is in them afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from liontool.optim import Lion

RATIO = 4.0
LR = 0.01
SCHEDULERS = torch.optim.lr_scheduler


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two layers with a norm between: 6 parameters."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    return layers.to(dtype)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    *schedulers: Any,
) -> None:
    """Some steps on noise, with a gradient for whatever the loss depends on."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(5, 3, generator=generator).to(dtype)).square().sum().backward()
        optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def adamw(
    steps: int = 30, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[nn.Sequential, torch.optim.AdamW]:
    """A model and its AdamW after some steps."""
    model = network(dtype)
    optimizer = torch.optim.AdamW(model.parameters(), **{"lr": LR, "weight_decay": 0.1, **options})
    train(model, optimizer, steps)
    return model, optimizer


def save(value: Any, path: Path, **options: Any) -> Path:
    """`torch.save`, and the path."""
    torch.save(value, path, **options)
    return path


def load(path: Path) -> Any:
    """What every user can do with a file of ours: no code is run, nothing read before its use."""
    return torch.load(path, weights_only=True, mmap=True)


def resume(
    state: Mapping[str, Any],
    params: Any,
    lion: Callable[..., torch.optim.Optimizer] = Lion,
    **options: Any,
) -> torch.optim.Optimizer:
    """A Lion with `state` in it after one step; a warning would be an error."""
    optimizer = lion(params, **{"lr": 1.0, **options})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.load_state_dict(dict(state))
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.ones_like(param)
    optimizer.step()
    return optimizer


def bits(tensor: torch.Tensor) -> bytes:
    """The elements as bytes."""
    return bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).tolist())

"""The numbers of a parameter group, in float64; tensors where reading would wait for a device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from liontool.optim import _dispatch, reference
from liontool.optim.reference import Coefficients, Scalar

Group = dict[str, Any]

COUNTERS = ("step", "micro_step")


def learning_rate(group: Group) -> Scalar:
    """The lr of a group in float64."""
    lr = group["lr"]
    if not isinstance(lr, Tensor):
        return float(lr)
    if _readable(lr, group):
        return float(lr)
    return lr.double().reshape(())


def detached(lr: float | Tensor) -> float | Tensor:
    """The lr as a number that nobody differentiates through."""
    return lr.detach() if isinstance(lr, Tensor) else lr


def is_moving(group: Group) -> bool:
    """Whether the lr of a group is not 0, as far as that can be told without waiting."""
    lr = learning_rate(group)
    return isinstance(lr, Tensor) or lr != 0


def weight_decay(group: Group) -> float:
    """The part of the weights that is taken off per unit of lr."""
    decay = float(group["weight_decay"])
    return decay / float(group["reference_lr"]) if group["decoupled_weight_decay"] else decay


def coefficients(group: Group) -> Coefficients:
    """The coefficients of the step that a group is about to do."""
    beta1, beta2 = (float(beta) for beta in group["betas"])
    next_beta2 = reference.momentum_beta(beta2, group["horizon"], step_number(group))
    return reference.coefficients(learning_rate(group), weight_decay(group), (beta1, next_beta2))


def step_number(group: Group) -> int | Tensor:
    """The number of the step that a group is about to do, from 1."""
    return counted(group, "step") + 1


def counted(group: Group, counter: str) -> int | Tensor:
    """A counter of a group as a Python number, where that costs nothing."""
    value: Tensor = group[counter]
    return int(value) if _readable(value, group) else value


def most(groups: Sequence[Group], counter: str) -> int | Tensor:
    """A count that all groups share: that of the group which has counted most."""
    counts = [counted(group, counter) for group in groups]
    if all(isinstance(count, int) for count in counts):
        return max(int(count) for count in counts)
    device = next(count.device for count in counts if isinstance(count, Tensor))
    return torch.stack([torch.as_tensor(count, device=device) for count in counts]).max()


def counter_device(group: Group) -> torch.device:
    """Where the counters of a group live: with the weights, if a device flag may hold them back."""
    flagged = group["capturable"] or group["fused"] or group["nonfinite"] == "skip"
    if not flagged and not _dispatch.counts_on_device([group]):
        return torch.device("cpu")
    devices = (param.device for param in group["params"] if isinstance(param, Tensor))
    return next(devices, torch.device("cpu"))


def counter(value: Any, device: torch.device) -> Tensor:
    """A count of a group's own: 0-d, int64, shared with nobody."""
    return torch.tensor(int(value), dtype=torch.int64, device=device)


def place_counters(group: Group) -> None:
    """Move the counters of a group to where they live, should its weights have moved."""
    if torch.compiler.is_compiling():
        return
    device = counter_device(group)
    for name in COUNTERS:
        if group[name].device != device:
            group[name] = group[name].to(device)


def _readable(value: Tensor, group: Group) -> bool:
    return (
        value.device.type == "cpu"
        and not torch.compiler.is_compiling()
        and not group["capturable"]
        and not group["differentiable"]
    )

"""Running averages of the weights, in Keras's order: after the update, on every micro-step."""

from __future__ import annotations

import torch
from torch import Tensor

from liontool.optim import _scalars, reference
from liontool.optim._batch import Average, Batch, keep, wide_weight, write
from liontool.optim._gradients import Gate


def average(batches: list[Batch], gate: Gate) -> None:
    """Move every average towards its weights; overwrite the weights where that is due."""
    averages = [each for batch in batches for each in batch.averages]
    if not averages:
        return
    group, steps = batches[0].group, _steps(batches)
    momentum = _momentum(steps, group["ema_momentum"])
    due = _overwrite_is_due(steps, group["ema_overwrite_frequency"])
    skip = False if gate.skip is None else gate.skip
    for each in averages:
        each.ema.copy_(keep(each.ema, _moved(each, momentum), skip))
        if due is not False:
            stay = skip | ~due if isinstance(due, Tensor) else skip
            write(each.weight, each.residual, each.ema, stay)


def _steps(batches: list[Batch]) -> int | Tensor:
    """Steps so far, of the group that has done most: averages have one count for all groups."""
    counts = [_scalars.counted(batch.group, "step") for batch in batches]
    if all(isinstance(count, int) for count in counts):
        return max(int(count) for count in counts)
    device = next(count.device for count in counts if isinstance(count, Tensor))
    return torch.stack([torch.as_tensor(count, device=device) for count in counts]).max()


def _moved(average: Average, momentum: reference.Scalar) -> Tensor:
    ema = average.ema
    wide = wide_weight(average.weight, average.residual)
    return reference.rounded(momentum, ema) * ema + reference.rounded(1 - momentum, ema) * wide


def _momentum(steps: int | Tensor, momentum: float) -> reference.Scalar:
    """Weight of the old average: 0 in the first step, so that it starts as the weights."""
    if isinstance(steps, Tensor):
        return (steps != 0).double() * float(momentum)
    return float(momentum) if steps else 0.0


def _overwrite_is_due(steps: int | Tensor, every: int | None) -> bool | Tensor:
    return False if every is None else (steps + 1) % every == 0

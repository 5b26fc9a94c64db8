"""Running averages of the weights, in Keras's order: after the update, on every micro-step."""

from __future__ import annotations

from torch import Tensor

from liontool.optim import _scalars, reference
from liontool.optim._batch import Average, Batch, keep, wide_weight
from liontool.optim._gradients import Gate


def average(batches: list[Batch], gate: Gate) -> None:
    """Move every average towards its weights; overwrite the weights where that is due."""
    averages = [each for batch in batches for each in batch.averages]
    if not averages:
        return
    group, steps = batches[0].group, _scalars.most([batch.group for batch in batches], "step")
    momentum = _momentum(steps, group["ema_momentum"])
    due = _overwrite_is_due(steps, group["ema_overwrite_frequency"])
    for each in averages:
        each.ema.copy_(keep(each.ema, _moved(each, momentum), gate.skip))
        if isinstance(due, Tensor):
            each.write(each.ema, gate.skip | ~due)
        elif due:
            each.write(each.ema, gate.skip)


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

"""Running averages of the weights, in Keras's order: after the update, on every micro-step."""

from __future__ import annotations

from torch import Tensor

from liontool.optim import _scalars, reference
from liontool.optim._batch import Average, Batch, Group, keep, wide_weight, write
from liontool.optim._gradients import Gate


def average(batches: list[Batch], gate: Gate) -> None:
    """Move every average towards its weights; overwrite the weights where that is due."""
    skip = False if gate.skip is None else gate.skip
    for batch in batches:
        if batch.group["use_ema"]:
            momentum = _momentum(batch.group)
            due = _overwrite_is_due(batch.group)
            for each in batch.averages:
                each.ema.copy_(keep(each.ema, _moved(each, momentum), skip))
                if due is not False:
                    stay = skip | ~due if isinstance(due, Tensor) else skip
                    write(each.weight, each.residual, each.ema, stay)


def _moved(average: Average, momentum: reference.Scalar) -> Tensor:
    ema = average.ema
    wide = wide_weight(average.weight, average.residual)
    return reference.rounded(momentum, ema) * ema + reference.rounded(1 - momentum, ema) * wide


def _momentum(group: Group) -> reference.Scalar:
    """Weight of the old average: 0 in the first step, so that it starts as the weights."""
    step = _scalars.counted(group, "step")
    if isinstance(step, Tensor):
        return (step != 0).double() * float(group["ema_momentum"])
    return float(group["ema_momentum"]) if step else 0.0


def _overwrite_is_due(group: Group) -> bool | Tensor:
    every: int | None = group["ema_overwrite_frequency"]
    if every is None:
        return False
    return (_scalars.counted(group, "step") + 1) % every == 0

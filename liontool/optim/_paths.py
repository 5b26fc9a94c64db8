"""The ways to do the arithmetic of a step without a kernel; all give the same bits.

A path takes weights, gradients and momenta in the dtype that is computed in and returns new weights
and momenta. It is `reference.updated`, tensor by tensor or operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch

from liontool.optim import reference
from liontool.optim._batch import Tensors
from liontool.optim.reference import Coefficients, Scalar, StepSize

Path: TypeAlias = Callable[
    [Tensors, Tensors, Tensors, Sequence[StepSize], Coefficients, bool], tuple[Tensors, Tensors]
]


def loop(
    weights: Tensors,
    grads: Tensors,
    exp_avgs: Tensors,
    sizes: Sequence[StepSize],
    factors: Coefficients,
    cautious_wd: bool,
) -> tuple[Tensors, Tensors]:
    """The definition itself, one tensor after the other."""
    pairs = [
        reference.updated(p, g, m, size, factors, cautious_wd)
        for p, g, m, size in zip(weights, grads, exp_avgs, sizes, strict=True)
    ]
    return [p for p, _ in pairs], [m for _, m in pairs]


def foreach(
    weights: Tensors,
    grads: Tensors,
    exp_avgs: Tensors,
    sizes: Sequence[StepSize],
    factors: Coefficients,
    cautious_wd: bool,
) -> tuple[Tensors, Tensors]:
    """The same operations, each on all tensors of a device and dtype at once."""
    rounded: list[Any] = [reference.rounded(factor, weights[0]) for factor in factors]
    decay, beta1, gradient1, beta2, gradient2 = rounded
    mixes = torch._foreach_mul(exp_avgs, beta1)
    torch._foreach_add_(mixes, torch._foreach_mul(grads, gradient1))
    updates = torch._foreach_sign(mixes)
    torch._foreach_mul_(mixes, 0)
    torch._foreach_add_(updates, mixes)
    del mixes  # as big as all weights together
    multiply_by_sizes(updates, grads, sizes)
    new_weights = torch._foreach_mul(weights, decay)
    if cautious_wd:
        shrinking = [step * p > 0 for step, p in zip(updates, weights, strict=True)]
        new_weights = tuple(map(torch.where, shrinking, new_weights, weights))
    torch._foreach_sub_(new_weights, updates)
    del updates
    new_exp_avgs = torch._foreach_mul(exp_avgs, beta2)
    torch._foreach_add_(new_exp_avgs, torch._foreach_mul(grads, gradient2))
    return new_weights, new_exp_avgs


def common_size(sizes: Sequence[StepSize]) -> Scalar | None:
    """The number that all elements of all updates are multiplied by, if it is one."""
    first = sizes[0]
    if isinstance(first, tuple) or any(size is not first for size in sizes):
        return None
    return first


def multiply_by_sizes(updates: Tensors, grads: Tensors, sizes: Sequence[StepSize]) -> None:
    """Make of updates the steps, in place."""
    common = common_size(sizes)
    if common is not None:
        factor: Any = reference.rounded(common, updates[0])
        torch._foreach_mul_(updates, factor)
        return
    for update, grad, size in zip(updates, grads, sizes, strict=True):
        update.mul_(reference.step_sizes(update, grad, size))

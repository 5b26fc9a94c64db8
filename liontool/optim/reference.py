"""The definition of Lion and LionSF, one tensor at a time; every other path must equal it.

Lion is from "Symbolic Discovery of Optimization Algorithms", https://arxiv.org/abs/2302.06675, in
the order of google/automl (Apache-2.0): decay, update, momentum. LionSF's scale follows
lucidrains/lion-pytorch (MIT).

Pure functions: nothing is changed in place. Only mul, add, sub, sign, compare and where touch
tensors, since fused forms (`alpha=`, `lerp`, `addcmul`) round differently from one machine to
another. float64 computes in float64, complex as pairs of reals, all else in float32. Scalars are
Python floats, that is float64, and are rounded once, when they meet a tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor


def lion_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float],
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """One step on one tensor; returns the new weights and the new momentum.

    Args:
        param: Weights of any shape; float32, float64, bfloat16, float16 or complex.
        grad: Gradient of the same shape.
        exp_avg: Momentum of the same shape.
        lr: Step size.
        weight_decay: Part of the weights that is taken off per unit of `lr`.
        betas: Weight of the momentum in the update, and in the next momentum.
        scale: Factor on the update but not on the decay; LionSF's agreement.
    """
    p, g, m = widened(param), widened(grad), widened(exp_avg)
    beta2 = betas[1]
    decay = 1 - lr * weight_decay
    update = mixed_sign(grad, exp_avg, betas[0])
    p = p * decay - (lr * scale) * update
    m = beta2 * m + (1 - beta2) * g
    return _narrowed(p, param), _narrowed(m, exp_avg)


def mixed_sign(grad: Tensor, exp_avg: Tensor, beta1: float) -> Tensor:
    """Lion's update: the sign of the mix of momentum and gradient, NaN where that is not finite."""
    mix = beta1 * widened(exp_avg) + (1 - beta1) * widened(grad)
    return mix.sign() + 0 * mix  # sign(nan) is 0 in torch; keep it visible


def momentum_beta(beta2: float, horizon: float | None, step: int) -> float:
    """The momentum's weight in step number `step`, from 1, after a start over `horizon` gradients.

    Equals a plain average of all gradients so far until that average is as long as `beta2` makes
    it.
    """
    if horizon is None:
        return beta2
    return min(beta2, 1 - 1 / (horizon + step))


def agreement_counts(update: Tensor, grad: Tensor, *, signed: bool) -> tuple[Tensor, int | Tensor]:
    """How many elements of `update` point where `grad` points, and of how many.

    Args:
        update: From `mixed_sign`.
        grad: The gradient that went into it.
        signed: Leave out elements with a gradient of zero, which otherwise count as disagreement.
    """
    g = widened(grad)
    agreeing = (update * g > 0).sum()
    return agreeing, ((g != 0).sum() if signed else g.numel())


def agreement_scale(agreeing: int, counted: int, *, pow: float, signed: bool) -> float:
    """LionSF's factor on the update: 0 at chance, 1 at full agreement, 1 where nothing counts.

    Args:
        agreeing: Elements that agree.
        counted: Elements that count.
        pow: Exponent of the factor.
        signed: Disagreement counts as 0; published, it counts like agreement.
    """
    if counted == 0:
        return 1.0
    surplus = 2 * agreeing / counted - 1
    return float((max(0.0, surplus) if signed else abs(surplus)) ** pow)


def widened(tensor: Tensor) -> Tensor:
    """The tensor in the dtype that it is computed in; complex gets a last dimension of 2."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _narrowed(result: Tensor, like: Tensor) -> Tensor:
    if like.is_complex():
        result = torch.view_as_complex(result.contiguous())
    return result.to(like.dtype)

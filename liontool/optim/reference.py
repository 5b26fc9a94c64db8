"""The definition of Lion and LionSF, one tensor at a time; every other path must equal it.

Lion is from "Symbolic Discovery of Optimization Algorithms", https://arxiv.org/abs/2302.06675, in
the order of google/automl (Apache-2.0): decay, update, momentum. LionSF's scale follows
govorunov/lion-sf (MIT), caution lucidrains/lion-pytorch (MIT),
https://arxiv.org/abs/2411.16085 and https://arxiv.org/abs/2510.12402.

Pure functions: nothing is changed in place. Only mul, add, sub, sign, compare and where touch
tensors, since fused forms (`alpha=`, `lerp`, `addcmul`) round differently from one machine to
another. float64 computes in float64, complex as pairs of reals, all else in float32. A scalar is a
Python float, that is float64, or a 0-d float64 tensor, and is rounded once, when it meets a tensor.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor

Scalar: TypeAlias = float | Tensor
"""float64, either way."""

StepSize: TypeAlias = Scalar | tuple[Scalar, Scalar]
"""What multiplies the update: one for all, or (where it agrees with the gradient, elsewhere)."""


class Coefficients(NamedTuple):
    """What multiplies weight, momentum and gradient in a step.

    Attributes:
        decay: Of the weight.
        beta1: Of the momentum in the update.
        gradient1: Of the gradient in the update.
        beta2: Of the momentum in the next momentum.
        gradient2: Of the gradient in the next momentum.
    """

    decay: Scalar
    beta1: Scalar
    gradient1: Scalar
    beta2: Scalar
    gradient2: Scalar


def coefficients(lr: Scalar, weight_decay: float, betas: tuple[float, Scalar]) -> Coefficients:
    """The coefficients in float64."""
    beta1, beta2 = betas
    return Coefficients(1 - lr * weight_decay, beta1, 1 - beta1, beta2, 1 - beta2)


def lion_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    *,
    lr: Scalar,
    weight_decay: float,
    betas: tuple[float, Scalar],
    scale: Scalar = 1.0,
    cautious_factor: float = 1.0,
    cautious_wd: bool = False,
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
        cautious_factor: What an update counts that points against its gradient; 1 is off.
        cautious_wd: Whether only weights decay that the update makes smaller.
    """
    p = widened(param)
    g, m = widened(grad).to(p.dtype), widened(exp_avg).to(p.dtype)
    factors = coefficients(lr, weight_decay, betas)
    size: StepSize = lr * scale
    if cautious_factor != 1:
        agreeing = agreement_counts(mixed_sign(g, m, factors), g)
        agree, differ = cautious_factors(agreeing, g.numel(), cautious_factor)
        size = (lr * scale * agree, lr * scale * differ)
    p, m = updated(p, g, m, size, factors, cautious_wd)
    return narrowed(p, param), narrowed(m, exp_avg)


def updated(
    p: Tensor,
    g: Tensor,
    m: Tensor,
    size: StepSize,
    factors: Coefficients,
    cautious_wd: bool = False,
) -> tuple[Tensor, Tensor]:
    """Weights and momentum after a step, all in the dtype that is computed in."""
    decay, _, _, beta2, gradient2 = (rounded(factor, p) for factor in factors)
    update = mixed_sign(g, m, factors)
    step = step_sizes(update, g, size) * update
    decayed = torch.where(step * p > 0, p * decay, p) if cautious_wd else p * decay
    return decayed - step, beta2 * m + gradient2 * g


def mixed_sign(g: Tensor, m: Tensor, factors: Coefficients) -> Tensor:
    """Lion's update: the sign of the mix of momentum and gradient, NaN where that is not finite."""
    mix = rounded(factors.beta1, m) * m + rounded(factors.gradient1, g) * g
    return mix.sign() + 0 * mix  # sign(nan) is 0 in torch; keep it visible


def step_sizes(update: Tensor, g: Tensor, size: StepSize) -> Scalar:
    """What each element of the update is multiplied by."""
    if not isinstance(size, tuple):
        return rounded(size, g)
    agree, differ = (torch.as_tensor(each, dtype=g.dtype, device=g.device) for each in size)
    return torch.where(update * g > 0, agree, differ)


def momentum_beta(beta2: float, horizon: float | None, step: int | Tensor) -> Scalar:
    """The momentum's weight in step number `step`, from 1, after a start over `horizon` gradients.

    Equals a plain average of all gradients so far until that average is as long as `beta2` makes
    it.
    """
    if horizon is None:
        return beta2
    if isinstance(step, Tensor):
        return (1 - 1 / (horizon + step.double())).clamp(max=beta2)
    return min(beta2, 1 - 1 / (horizon + step))


def agreement_counts(update: Tensor, g: Tensor) -> Tensor:
    """How many elements of `update` point where the gradient points: 0-d, int64."""
    return (update * g > 0).sum()


def agreement_scale(agreeing: Tensor, counted: int | Tensor, *, pow: float, signed: bool) -> Tensor:
    """LionSF's factor on the update: 0 at chance, 1 at full agreement, 1 where nothing counts.

    Args:
        agreeing: Elements that agree, a 0-d tensor.
        counted: Elements that count.
        pow: Exponent of the factor.
        signed: Disagreement counts as 0; published, it counts like agreement.
    """
    surplus = 2 * share(agreeing, counted) - 1
    factor: Tensor = (surplus.clamp(min=0) if signed else surplus.abs()) ** pow
    return factor


def cautious_factors(agreeing: Tensor, counted: int, factor: float) -> tuple[Tensor, Tensor]:
    """What agreeing and other updates are multiplied by so that their mean stays 1.

    Args:
        agreeing: Elements that agree, a 0-d tensor.
        counted: All elements.
        factor: What an update counts that does not agree.
    """
    agreed = share(agreeing, counted)
    mean = (agreed + factor * (1 - agreed)).clamp(min=1e-5)
    return 1 / mean, factor / mean


def share(part: Tensor, whole: int | Tensor) -> Tensor:
    """`part / whole` in float64; 1 where `whole` is 0."""
    if isinstance(whole, Tensor):
        return torch.where(whole == 0, 1.0, part.double() / whole.double())
    return part.double() / whole if whole else torch.ones_like(part, dtype=torch.float64)


def rounded(scalar: Scalar, like: Tensor) -> Scalar:
    """The scalar as `like` computes with it. A Python float is rounded by the operation itself."""
    if isinstance(scalar, Tensor):
        return scalar.to(device=like.device, dtype=like.dtype)
    return scalar


def widened(tensor: Tensor) -> Tensor:
    """The tensor in the dtype that it is computed in; complex gets a last dimension of 2."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def narrowed(result: Tensor, like: Tensor) -> Tensor:
    """The opposite of `widened`, rounded to nearest."""
    if like.is_complex():
        result = torch.view_as_complex(result.contiguous())
    return result.to(like.dtype)

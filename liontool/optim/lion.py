"""Lion: sign of the interpolated momentum, one moment, decoupled decay."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from liontool.optim._base import LionBase


class Lion(LionBase):
    """Lion, from "Symbolic Discovery of Optimization Algorithms", https://arxiv.org/abs/2302.06675.

    For each weight p with gradient g and momentum m::

        u = sign(beta1 * m + (1 - beta1) * g)
        p = p * (1 - lr * weight_decay) - lr * u
        m = beta2 * m + (1 - beta2) * g

    Against AdamW it wants an lr 3 to 10 times smaller and a weight decay as much larger.

    A group with a `horizon`, which `liontool convert` writes, has a momentum that averages only so
    many gradients as yet: there beta2 is `min(beta2, 1 - 1 / (horizon + step))`, with `step` from
    1.

    Computes in float32 for float32, bfloat16 and float16, in float64 for float64, on complex as
    pairs of reals; in float32 every path gives the same bits. Gradients are never changed. Every
    option can be given for each group of parameters, but `global_clipnorm`, the accumulation and
    the averages are the same in all.

    The step is, in this order: `loss_scale_factor`, accumulation, one clip, the rule above, the
    average of the weights. That is Keras's order, and those arguments are Keras's.

    Args:
        params: Parameters, named parameters, or groups of either.
        lr: Step size, a float or a tensor of one element; 0 is allowed.
        betas: Weight of the momentum in the update, and in the next momentum.
        weight_decay: Part of the weights to take off per step and unit of lr.
        cautious_factor: What an update counts that points against its gradient, before all are
            scaled to count 1 on average (https://arxiv.org/abs/2411.16085); 1 is off, 0 masks
            them. All are scaled by at most 1e5.
        cautious_wd: Take the decay off only where the update makes the weight smaller
            (https://arxiv.org/abs/2510.12402).
        decoupled_weight_decay: `weight_decay` is the part per step at the first lr of the group,
            kept there as `reference_lr`: the decay is `1 - lr / reference_lr * weight_decay`.
        rounding: How a new weight gets into bfloat16: to the `"nearest"`, which loses updates
            smaller than half a unit in the last place, and the decay with them; `"split"`, which
            keeps the other 16 bits of float32 in the state, exact; or `"stochastic"`, right on
            average without memory, the same on every path and sharding. float32 and float64 weights
            have nothing to round.
        state_dtype: `torch.float32` or `torch.bfloat16` for the momentum; None is the parameter's
            dtype.
        nonfinite: A gradient that is infinite or NaN makes its weight NaN (`"propagate"`), leaves
            out the whole step on all ranks without waiting for the device (`"skip"`), or raises
            before anything is changed (`"raise"`).
        maximize: Go up instead of down.
        foreach: Operate on all tensors at once, or on one after the other (False); None takes the
            fastest path that is exact.
        fused: Use a kernel, and raise where there is none; None takes one where there is, False
            never.
        use_triton: lion-pytorch's name of `fused`.
        capturable: Keep the counters with the weights and read nothing back, so that a CUDA graph
            can hold the step. Then GradScaler leaves unscaling and skipping to the step.
        differentiable: Let autograd see the step; only the loop can.
        clipnorm: Upper bound of the norm of each gradient.
        clipvalue: Upper bound of the size of each element of a gradient.
        global_clipnorm: Upper bound of the norm of all gradients together.
        use_ema: Keep a running average of the weights; see `averaged_weights`.
        ema_momentum: Weight of the old average.
        ema_overwrite_frequency: Overwrite the weights with their average every so many steps.
        loss_scale_factor: What the loss was multiplied by; gradients are divided by it.
        gradient_accumulation_steps: Average so many gradients before they count; each call of
            `step` is one micro-step.

    Raises:
        ValueError: An option has an illegal value, or two exclude each other.
        RuntimeError: `fused=True` where there is no kernel.

    Example:
        >>> import torch
        >>> from liontool.optim import Lion
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = Lion(model.parameters(), lr=1e-4, weight_decay=0.1)
        >>> model(torch.ones(2, 4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        cautious_factor: float = 1.0,
        cautious_wd: bool = False,
        decoupled_weight_decay: bool = False,
        rounding: str = "nearest",
        state_dtype: torch.dtype | str | None = None,
        nonfinite: str = "propagate",
        maximize: bool = False,
        foreach: bool | None = None,
        fused: bool | None = None,
        use_triton: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int | None = None,
    ) -> None:
        super().__init__(params, locals())  # every argument is an option of a group

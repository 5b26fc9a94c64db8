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
    pairs of reals. The momentum has the dtype of its parameter. A non-finite gradient makes its
    weight NaN.

    Args:
        params: Parameters, named parameters, or groups of either, in which each option can be
            given.
        lr: Step size, a float or a tensor of one element; 0 is allowed.
        betas: Weight of the momentum in the update, and in the next momentum.
        weight_decay: Part of the weights to take off per step and unit of lr.
        maximize: Go up instead of down.
        decoupled_weight_decay: `weight_decay` is the part per step at the first lr of the group,
            kept there as `reference_lr`: the decay is `1 - lr / reference_lr * weight_decay`.

    Raises:
        ValueError: An option has an illegal value, or `decoupled_weight_decay` is given with lr 0.

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

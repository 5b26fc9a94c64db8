"""LionSF: Lion whose update shrinks where sign and gradient disagree, for a constant lr."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from liontool.optim._base import LionBase


class LionSF(LionBase):
    """Schedule-free Lion after govorunov/lion-sf (MIT), in Lion's arithmetic as defined here.

    With u as in `Lion`, and a the share of elements with u * g > 0::

        scale = abs(2 * a - 1) ** pow
        p = p * (1 - lr * weight_decay) - lr * scale * u

    What the share is taken over is `agreement`:

    =============== =================== ===========================================================
    `agreement`     taken over          zero gradients, and more disagreement than agreement
    =============== =================== ===========================================================
    "tensor"        each parameter      as published: zeros disagree, full disagreement has scale 1
    "group"         the parameter group the same
    "tensor_signed" each parameter      zeros are left out, disagreement has scale 0
    "group_signed"  the parameter group the same
    =============== =================== ===========================================================

    The scale is 1 where nothing counts. An embedding whose gradient is mostly zero has a scale near
    1 as published; the signed forms mend that.

    Args:
        params: As in `Lion`, like all arguments that are not named here.
        lr: As in `Lion`; the author advises 5e-4 and more, held constant.
        pow: Exponent of the scale; 0 makes it Lion.
        agreement: What counts, see the table.

    Raises:
        ValueError: An option has an illegal value, or two exclude each other.
        RuntimeError: `fused=True` where there is no kernel.

    Example:
        >>> import torch
        >>> from liontool.optim import LionSF
        >>> model = torch.nn.Linear(4, 1)
        >>> optimizer = LionSF(model.parameters(), lr=5e-4)
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
        pow: float = 1.0,
        agreement: str = "tensor",
    ) -> None:
        super().__init__(params, locals())  # every argument is an option of a group

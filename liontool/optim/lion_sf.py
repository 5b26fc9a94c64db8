"""LionSF: Lion whose update shrinks where sign and gradient disagree, for a constant lr."""

from __future__ import annotations

from torch import Tensor
from torch.optim.optimizer import ParamsT

from liontool.optim import reference
from liontool.optim._base import Group, LionBase, gradient, scalars


class LionSF(LionBase):
    """Schedule-free Lion after lucidrains/lion-pytorch (MIT), in Lion's arithmetic as defined here.

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
        params: As in `Lion`.
        lr: As in `Lion`; the author advises 5e-4 and more, held constant.
        betas: As in `Lion`.
        weight_decay: As in `Lion`.
        maximize: As in `Lion`.
        decoupled_weight_decay: As in `Lion`.
        pow: Exponent of the scale; 0 makes it Lion.
        agreement: What counts, see the table.

    Raises:
        ValueError: An option has an illegal value, or `decoupled_weight_decay` is given with lr 0.

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
        maximize: bool = False,
        decoupled_weight_decay: bool = False,
        pow: float = 1.0,
        agreement: str = "tensor",
    ) -> None:
        options = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "decoupled_weight_decay": decoupled_weight_decay,
            "pow": pow,
            "agreement": agreement,
        }
        super().__init__(params, options)

    def _step_group(self, group: Group, params: list[Tensor]) -> None:
        arguments = scalars(group)
        scales = self._scales(group, params, arguments["betas"][0])
        for param, scale in zip(params, scales, strict=True):
            exp_avg = self._momentum(param)
            new = reference.lion_step(
                param, gradient(param, group), exp_avg, scale=scale, **arguments
            )
            param.copy_(new[0])
            exp_avg.copy_(new[1])

    def _scales(self, group: Group, params: list[Tensor], beta1: float) -> list[float]:
        """The scale of each parameter, from counts before anything of the group has changed."""
        signed = group["agreement"].endswith("_signed")
        counts = [self._counts(param, group, beta1, signed) for param in params]
        if group["agreement"].startswith("group"):
            total = (sum(agreeing for agreeing, _ in counts), sum(of for _, of in counts))
            counts = [total] * len(counts)
        return [
            reference.agreement_scale(agreeing, counted, pow=group["pow"], signed=signed)
            for agreeing, counted in counts
        ]

    def _counts(self, param: Tensor, group: Group, beta1: float, signed: bool) -> tuple[int, int]:
        grad = gradient(param, group)
        update = reference.mixed_sign(grad, self._momentum(param), beta1)
        agreeing, counted = reference.agreement_counts(update, grad, signed=signed)
        return int(agreeing), int(counted)

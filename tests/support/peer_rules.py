"""Update rules of packages that pip has not, or has only with more than a test should install.

Rewritten from their formulas; the differences between them are in the order of roundings:

- lion-sf: govorunov/lion-sf at 3d99ca0, `lion_pytorch/lion_schedule_free.py` (MIT).
- automl: google/automl at 14d8bbd, `lion/lion_pytorch.py` (Apache-2.0).
- timm: huggingface/pytorch-image-models 1.0.31, `timm/optim/lion.py` (Apache-2.0).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

Rule = Callable[[Tensor, Tensor, Tensor, dict[str, Any]], None]


class RuleOptimizer(Optimizer):
    """A rule as an optimizer of torch: a loop, `exp_avg` of zeros at first.

    Args:
        params: Parameters.
        rule: Changes weights and momentum in place; gets weights, gradient, momentum, options.
        options: Options of the rule.
    """

    def __init__(self, params: Any, rule: Rule, **options: Any) -> None:
        self.rule = rule
        super().__init__(params, {"betas": (0.9, 0.99), "weight_decay": 0.0, **options})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step on every parameter with a gradient."""
        for group in self.param_groups:
            for param in group["params"]:
                if param.grad is not None:
                    state = self.state[param]
                    exp_avg = state.setdefault("exp_avg", torch.zeros_like(param))
                    self.rule(param, param.grad, exp_avg, group)


def lion_sf(param: Tensor, grad: Tensor, exp_avg: Tensor, group: dict[str, Any]) -> None:
    """LionSF: the step is scaled by how far the signs agree, or disagree, beyond chance."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    param.mul_(1 - lr * group["weight_decay"])
    update = (exp_avg * beta1).add(grad, alpha=1 - beta1).sign()
    agreement = 2 * ((update * grad > 0).mean(dtype=torch.float32) - 0.5)
    param.add_(update, alpha=float(-lr * agreement.abs() ** group["pow"]))
    exp_avg.mul_(beta2).add_(grad, alpha=1 - beta2)


def automl(param: Tensor, grad: Tensor, exp_avg: Tensor, group: dict[str, Any]) -> None:
    """Lion as its authors have it."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    param.mul_(1 - lr * group["weight_decay"])
    param.add_((exp_avg * beta1 + grad * (1 - beta1)).sign(), alpha=-lr)
    exp_avg.mul_(beta2).add_(grad, alpha=1 - beta2)


def timm(param: Tensor, grad: Tensor, exp_avg: Tensor, group: dict[str, Any]) -> None:
    """timm's loop: lerp for both means, caution with a mean of at least 1e-3."""
    lr, (beta1, beta2) = group["lr"], group["betas"]
    if group["maximize"]:
        grad = -grad
    if param.is_complex():
        param, grad, exp_avg = map(torch.view_as_real, (param, grad, exp_avg))
    param.mul_(1 - lr * group["weight_decay"])
    update = exp_avg.lerp(grad, 1 - beta1).sign()
    if group["caution"]:
        mask = (update * grad > 0).to(grad.dtype)
        update = update * (mask / mask.mean().clamp(min=1e-3))
    param.add_(update, alpha=-lr)
    exp_avg.lerp_(grad, 1 - beta2)

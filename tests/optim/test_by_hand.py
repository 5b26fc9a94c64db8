"""Steps of the optimizers worked out by hand: where all paths could be wrong alike."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF

# With a second beta of 0 the momentum is the gradient as the step sees it.
SEEN = {"betas": (0.9, 0.0), "lr": 0.0}
PATHS = pytest.mark.parametrize(
    "path",
    [{}, {"fused": False}, {"foreach": False}, {"capturable": True}],
    ids=["fastest", "no kernel", "loop", "capturable"],
)


def _seen(grads: list[Tensor], scale: float | None = None, **options: Any) -> list[Tensor]:
    """What a step makes of gradients before it uses them."""
    params = [Parameter(torch.ones_like(grad)) for grad in grads]
    optimizer = Lion(params, **{**SEEN, **options})
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    if scale is not None:
        optimizer.grad_scale, optimizer.found_inf = torch.tensor(scale), torch.tensor(0.0)
    optimizer.step()
    return [optimizer.state[param]["exp_avg"] for param in params]


@PATHS
def test_float64(path: dict[str, Any]) -> None:
    """Lion on float64 is Python's own arithmetic, for three steps and to the last bit."""
    lr, decay, (beta1, beta2) = 1e-3, 0.1, (0.9, 0.99)
    param = Parameter(torch.tensor([0.1], dtype=torch.float64))
    optimizer = Lion([param], lr, (beta1, beta2), decay, **path)
    p, m = 0.1, 0.0
    for g in (0.3, -0.7, -0.1):
        param.grad = torch.tensor([g], dtype=torch.float64)
        optimizer.step()
        p = p * (1 - lr * decay) - math.copysign(lr, beta1 * m + (1 - beta1) * g)
        m = beta2 * m + (1 - beta2) * g
        assert param.item() == p
        assert optimizer.state[param]["exp_avg"].item() == m


@PATHS
def test_float64_of_lion_sf(path: dict[str, Any]) -> None:
    """The scale is float64: with two of three agreeing it is a third of it, not of float32."""
    param = Parameter(torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64))
    optimizer = LionSF([param], 1e-3, **path)
    optimizer.init_state()
    optimizer.state[param]["exp_avg"].fill_(1.0)
    param.grad = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    optimizer.step()
    size = 1e-3 * abs(2 * (2 / 3) - 1)
    assert param.tolist() == [0.1 - size, 0.2 - size, 0.3 - size]


def _complex(options: dict[str, Any], kind: Any) -> Tensor:
    """A step of lr 1 from 0, two complex numbers; three of four parts agree."""
    param = Parameter(torch.zeros(2, dtype=torch.complex64))
    optimizer = kind([param], 1.0, **options)
    optimizer.init_state()
    optimizer.state[param]["exp_avg"].fill_(1 + 1j)
    param.grad = torch.tensor([1 - 1j, 1 + 1j])
    optimizer.step()
    return torch.view_as_real(param.detach()).flatten()


@PATHS
@pytest.mark.parametrize("agreement", ["tensor", "group", "tensor_signed", "group_signed"])
def test_agreement_of_complex_counts_parts(agreement: str, path: dict[str, Any]) -> None:
    """Three of four parts agree, and not three of two numbers."""
    assert _complex({"agreement": agreement, **path}, LionSF).tolist() == [-0.5] * 4


@PATHS
def test_caution_of_complex_counts_parts(path: dict[str, Any]) -> None:
    """The mean of three ones and a half is 0.875."""
    moved = _complex({"cautious_factor": 0.5, **path}, Lion)
    assert moved.tolist() == pytest.approx([-1 / 0.875, -0.5 / 0.875, -1 / 0.875, -1 / 0.875])


@PATHS
def test_sums_are_of_gradients_without_their_scale(path: dict[str, Any]) -> None:
    """What is kept over micro-steps is divided by the loss scale already, which may change."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param], **SEEN, loss_scale_factor=8.0, gradient_accumulation_steps=4, **path)
    for value, total in ((16.0, 2.0), (32.0, 6.0)):
        param.grad = torch.full((2,), value)
        optimizer.step()
        assert optimizer.state[param]["accumulator"].tolist() == [total, total]
    optimizer.param_groups[0]["loss_scale_factor"] = 1.0
    for value in (1.0, 5.0):
        param.grad = torch.full((2,), value)
        optimizer.step()
    assert optimizer.state[param]["exp_avg"].tolist() == [3.0, 3.0]


@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("way", ["grad_scale", "loss_scale_factor"])
def test_scales_are_reciprocals_of_float64(
    way: str, dtype: torch.dtype, path: dict[str, Any]
) -> None:
    """A gradient is multiplied by 1 / 3 in float64, rounded once to its own dtype."""
    grad = torch.arange(1.0, 1000.0).to(dtype).sqrt()
    scaled = {"scale": 3.0} if way == "grad_scale" else {way: 3.0}
    (seen,) = _seen([grad], **scaled, **path)
    third = torch.tensor(1 / 3, dtype=torch.float64).to(dtype)
    assert torch.equal(seen, grad * third)
    assert not torch.equal(seen, grad / 3)


@PATHS
def test_a_flag_of_grad_scaler_holds_all_back(path: dict[str, Any]) -> None:
    """A step that is handed `found_inf` changes neither weight, momentum nor count."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param], 0.5, **path)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(1.0), torch.tensor(1.0)
    param.grad = torch.ones(2)
    optimizer.step()
    assert param.tolist() == [1.0, 1.0]
    assert optimizer.state[param]["exp_avg"].tolist() == [0.0, 0.0]
    assert optimizer.param_groups[0]["step"] == 0


def _long_and_short(long: float) -> tuple[list[Tensor], float]:
    """Gradients of which one element is most of the norm, and that norm."""
    grads = [torch.full((2**18,), 1e-2), torch.tensor([long])]
    squares = [grads[0][0].item() ** 2] * grads[0].numel() + [grads[1].item() ** 2]
    return grads, math.sqrt(math.fsum(squares))


def _rounded(number: float) -> float:
    """As float32."""
    return torch.tensor(number, dtype=torch.float64).float().item()


@PATHS
@pytest.mark.parametrize("clip", ["clipnorm", "global_clipnorm"])
def test_norms_are_float64(clip: str, path: dict[str, Any]) -> None:
    """A norm that was rounded to float32 in between would give other bits."""
    grads, norm = _long_and_short(175.0)
    if clip == "clipnorm":
        grads = [torch.cat(grads)]
    factor = _rounded(1 / norm)
    assert factor != _rounded(1 / _rounded(norm))
    for grad, seen in zip(grads, _seen(grads, **{clip: 1.0}, **path), strict=True):
        assert torch.equal(seen, grad * factor)


@pytest.mark.parametrize("capturable", [False, True])
def test_an_average_that_comes_later_begins_as_its_weights(capturable: bool) -> None:
    """State that is made in the second step averages over the weights from before it."""
    first, later = Parameter(torch.ones(1)), Parameter(torch.full((1,), 8.0))
    options = {"use_ema": True, "ema_momentum": 0.75, "capturable": capturable}
    optimizer = Lion([first], 1.0, **options)
    first.grad = torch.ones(1)
    optimizer.step()
    assert optimizer.state[first]["ema"].item() == 0.0  # the weights after the first step
    optimizer.add_param_group({"params": [later]})
    optimizer.init_state()
    with optimizer.averaged_weights():
        assert later.item() == 8.0
    later.grad = torch.ones(1)
    optimizer.step()
    assert optimizer.state[later]["ema"].item() == 0.75 * 8 + 0.25 * 7

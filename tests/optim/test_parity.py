"""Lion beside lion_pytorch.Lion and beside float64; LionSF beside the published rule."""

from __future__ import annotations

import lion_pytorch
import pytest
import torch
from torch import Tensor

from liontool.optim import Lion, LionSF

SHAPES = [(63,), (17, 59), (3, 4, 5), (1,), ()]
STEPS = 100
# An element may take another sign where its mix is within rounding of zero; it then stays apart by
# multiples of 2 * lr. So few may differ; all others must be equal in bits.
FEW = 2


def _params(dtype: torch.dtype = torch.float32) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES
    ]


def _run(optimizer: torch.optim.Optimizer, steps: int = STEPS) -> list[Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    generator = torch.Generator().manual_seed(1)
    drift = [torch.randn(param.shape, generator=generator) for param in params]
    for _ in range(steps):
        for param, mean in zip(params, drift, strict=True):
            noise = torch.randn(param.shape, generator=generator)
            param.grad = (0.3 * mean + noise).to(param.dtype)
        optimizer.step()
    return [param.detach() for param in params]


@pytest.mark.parametrize("weight_decay", [0.0, 0.3], ids=["plain", "decay"])
@pytest.mark.parametrize("betas", [(0.9, 0.99), (0.95, 0.98)], ids=str)
def test_float32_equals_lion_pytorch(weight_decay: float, betas: tuple[float, float]) -> None:
    """After 100 steps the weights have the same bits, but for mixes within rounding of zero."""
    options = {"lr": 1e-3, "betas": betas, "weight_decay": weight_decay}
    ours = _run(Lion(_params(), **options))
    theirs = _run(lion_pytorch.Lion(_params(), **options))
    differing = sum(int((a != b).sum()) for a, b in zip(ours, theirs, strict=True))
    assert differing <= FEW


def test_float32_momentum_equals_lion_pytorch() -> None:
    """The momentum agrees within the rounding of 100 steps."""
    ours, theirs = Lion(_params(), lr=1e-3), lion_pytorch.Lion(_params(), lr=1e-3)
    _run(ours)
    _run(theirs)
    for a, b in zip(ours.state.values(), theirs.state.values(), strict=True):
        torch.testing.assert_close(a["exp_avg"], b["exp_avg"], rtol=0, atol=1e-6)


def test_decoupled_weight_decay_equals_lion_pytorch() -> None:
    """With decoupled decay too, while a schedule moves the lr."""
    options = {"lr": 1e-2, "weight_decay": 0.05, "decoupled_weight_decay": True}
    runs = []
    for optimizer in (Lion(_params(), **options), lion_pytorch.Lion(_params(), **options)):
        _run(optimizer, 50)
        optimizer.param_groups[0]["lr"] = 1e-3
        runs.append(_run(optimizer, 50))
    differing = sum(int((a != b).sum()) for a, b in zip(*runs, strict=True))
    assert differing <= FEW


def test_decoupled_weight_decay_is_relative_to_each_group() -> None:
    """A group with another lr has the decay that it was given, where lion_pytorch multiplies it."""
    a, b = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    groups = [{"params": [a]}, {"params": [b], "lr": 1e-2}]
    optimizer = Lion(groups, lr=1e-4, weight_decay=0.1, decoupled_weight_decay=True)
    for param in (a, b):
        param.grad = torch.zeros(1)
    optimizer.step()
    assert a.item() == b.item() == pytest.approx(0.9)


def test_float32_follows_float64() -> None:
    """In float64 the run is the same but for rounding."""
    narrow = _run(Lion(_params(), lr=1e-3, weight_decay=0.1))
    wide = _run(Lion(_params(torch.float64), lr=1e-3, weight_decay=0.1))
    far = sum(int(((a.double() - b).abs() > 1e-4).sum()) for a, b in zip(narrow, wide, strict=True))
    assert far <= FEW


def _published_sf(
    param: Tensor, grad: Tensor, exp_avg: Tensor, lr: float, weight_decay: float, pow: float
) -> None:
    """The rule that lucidrains/lion-pytorch publishes as LionScheduleFree."""
    param.mul_(1 - lr * weight_decay)
    update = (0.9 * exp_avg + 0.1 * grad).sign()
    agree = ((update * grad) > 0).float()
    scale = abs(2 * (agree.mean() - 0.5)) ** pow
    param.sub_(lr * scale * update)
    exp_avg.mul_(0.99).add_(0.01 * grad)


@pytest.mark.parametrize("pow", [1.0, 2.0, 0.5])
def test_lion_sf_equals_the_published_rule(pow: float) -> None:
    """Over 100 steps the weights agree within 1e-6 of the published rule, in float64."""
    optimizer = LionSF(_params(torch.float64), lr=1e-3, weight_decay=0.1, pow=pow)
    twins = [param.detach().clone() for param in _params(torch.float64)]
    momenta = [torch.zeros_like(twin) for twin in twins]
    generator = torch.Generator().manual_seed(2)
    params = optimizer.param_groups[0]["params"]
    for _ in range(STEPS):
        for param, twin, exp_avg in zip(params, twins, momenta, strict=True):
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64)
            _published_sf(twin, param.grad, exp_avg, 1e-3, 0.1, pow)
        optimizer.step()
    for param, twin in zip(params, twins, strict=True):
        torch.testing.assert_close(param.detach(), twin, rtol=0, atol=1e-6)


def test_lion_sf_with_pow_zero_is_lion() -> None:
    """Exponent 0 makes every scale 1."""
    sf = _run(LionSF(_params(), lr=1e-3, weight_decay=0.1, pow=0.0))
    plain = _run(Lion(_params(), lr=1e-3, weight_decay=0.1))
    assert all(torch.equal(a, b) for a, b in zip(sf, plain, strict=True))

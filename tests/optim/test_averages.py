"""Running averages of the weights, where Keras has no say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from liontool.optim import Lion
from liontool.optim._base import LionBase


def _step(optimizer: LionBase, *values: float) -> None:
    for group in optimizer.param_groups:
        for param in group["params"]:
            param.grad = torch.tensor(values, dtype=param.dtype)
    optimizer.step()


def test_an_average_begins_as_the_weights() -> None:
    """State that is made before the first step shows the weights that there are."""
    param = Parameter(torch.tensor([1.0, -2.0]))
    optimizer = Lion([param], use_ema=True)
    optimizer.init_state()
    with optimizer.averaged_weights():
        assert param.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("rounding", ["nearest", "split"])
def test_weights_come_back_bit_for_bit(rounding: str) -> None:
    """bfloat16 weights and their residuals are what they were before the evaluation."""
    param = Parameter(torch.tensor([1.0, -2.0], dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-2, rounding=rounding, use_ema=True, ema_momentum=0.5)
    for _ in range(3):
        _step(optimizer, 1.0, -1.0)
    before = [param.detach().clone(), *(each.clone() for each in optimizer.state[param].values())]
    with optimizer.averaged_weights():
        assert not torch.equal(param, before[0])
    after = [param.detach(), *optimizer.state[param].values()]
    assert all(map(torch.equal, before, after))


def test_no_step_while_averages_are_shown() -> None:
    """It would be undone; afterwards steps go on."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param], use_ema=True)
    _step(optimizer, 1.0, 1.0)
    with optimizer.averaged_weights(), pytest.raises(RuntimeError, match="would be undone"):
        optimizer.step()
    _step(optimizer, 1.0, 1.0)
    assert optimizer.param_groups[0]["step"] == 2


@pytest.mark.parametrize("way", [{"nonfinite": "skip"}, {"capturable": True}], ids=str)
def test_a_skipped_step_overwrites_nothing(way: dict[str, Any]) -> None:
    """Though the overwrite were due."""
    param = Parameter(torch.ones(2))
    options = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    optimizer = Lion([param], lr=0.1, **options, **way)
    _step(optimizer, 1.0, 1.0)
    before = [param.detach().clone(), optimizer.state[param]["ema"].clone()]
    if "capturable" in way:
        optimizer.found_inf = torch.tensor(1.0)
    _step(optimizer, float("inf"), 1.0)
    assert all(map(torch.equal, before, [param.detach(), optimizer.state[param]["ema"]]))
    assert optimizer.param_groups[0]["step"] == 1


@pytest.mark.parametrize("capturable", [False, True])
def test_a_group_that_comes_later_shares_the_count(capturable: bool) -> None:
    """Its average is overwritten when those of the first group are."""
    params = [Parameter(torch.ones(2)), Parameter(torch.ones(2))]
    optimizer = Lion(
        params[:1],
        lr=0.1,
        use_ema=True,
        ema_momentum=0.5,
        ema_overwrite_frequency=2,
        capturable=capturable,
    )
    _step(optimizer, 1.0, 1.0)
    optimizer.add_param_group({"params": params[1:]})
    _step(optimizer, 1.0, 1.0)
    for param in params:
        assert torch.equal(param, optimizer.state[param]["ema"])


def test_micro_steps_are_one_count() -> None:
    """A group that is added in the middle of a window ends it with the others."""
    params = [Parameter(torch.ones(2)), Parameter(torch.ones(2))]
    optimizer = Lion(params[:1], lr=0.1, gradient_accumulation_steps=3)
    _step(optimizer, 1.0, 1.0)
    optimizer.add_param_group({"params": params[1:]})
    for expected in (2, 0):
        _step(optimizer, 1.0, 1.0)
        assert [int(group["micro_step"]) for group in optimizer.param_groups] == [expected] * 2
    assert all(param[0] < 1 for param in params)


def test_rounding_can_be_switched_off() -> None:
    """A residual that nobody asks for any more stays as it is and counts for nothing."""
    param = Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-3, rounding="split")
    _step(optimizer, 1.0, 1.0)
    for rounding in ("stochastic", "nearest"):
        optimizer.param_groups[0].update(rounding=rounding, lr=0.25)
        before = param.detach().clone()
        _step(optimizer, 1.0, 1.0)
        torch.testing.assert_close(param.detach(), before - 0.25, rtol=0.01, atol=0)

"""GradScaler and gradients that are not finite: what a step does with them, and what it leaves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from support.lions import (
    KINDS,
    give_gradients,
    model,
    same,
    snapshot,
    train,
)
from support.no_sync import NoSync


def _optimizer(kind: Any, **options: Any) -> Any:
    return kind(model().parameters(), **{"lr": 0.01, **options})


def _params(optimizer: Any) -> list[Parameter]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _scaler(scale: float = 4.0) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000)
    scaler.scale(torch.zeros(()))  # so it makes its tensors
    return scaler


def _scaled_step(
    scaler: torch.amp.GradScaler, optimizer: Any, seed: int, bad: float | None = None
) -> None:
    give_gradients(_params(optimizer), seed)
    for param in _params(optimizer):
        param.grad.mul_(scaler.get_scale())
    if bad is not None:
        _params(optimizer)[1].grad[2] = bad
    scaler.step(optimizer)
    scaler.update()


@pytest.mark.parametrize("capturable", [False, True])
def test_step_with_infinities_changes_nothing(
    case: tuple[Any, dict[str, Any]], capturable: bool
) -> None:
    """Weights, state and counters keep their bits, whether the scaler skips or the step does."""
    kind, options = case
    optimizer = _optimizer(kind, **{**options, "capturable": capturable})
    train(optimizer)
    before, scaler = snapshot(optimizer), _scaler()
    _scaled_step(scaler, optimizer, 3, bad=float("inf"))
    assert same(snapshot(optimizer), before)
    assert scaler.get_scale() == 2.0


@pytest.mark.parametrize("capturable", [False, True])
def test_scaled_run_is_the_plain_run(case: tuple[Any, dict[str, Any]], capturable: bool) -> None:
    """A scale of a power of two leaves no trace, and neither does a skipped step in between."""
    kind, options = case
    plain, scaled = (_optimizer(kind, **{**options, "capturable": capturable}) for _ in range(2))
    scaler = _scaler(8.0)
    for seed in range(3):
        give_gradients(_params(plain), seed)
        plain.step()
        if seed == 1:
            _scaled_step(scaler, scaled, 7, bad=float("inf"))
        _scaled_step(scaler, scaled, seed)
    assert same(snapshot(scaled), snapshot(plain))


def test_who_unscales(kind: Any) -> None:
    """Scale and flag are left to the step where it needs no sync in all groups, else not."""
    first, second = ({"params": [Parameter(torch.ones(2))]} for _ in range(2))
    optimizer = kind([first, {**second, "capturable": True}])
    assert not optimizer._step_supports_amp_scaling
    optimizer.param_groups[0]["capturable"] = True
    assert optimizer._step_supports_amp_scaling


@pytest.mark.parametrize("capturable", [False, True])
def test_unscaled_by_the_user(kind: Any, capturable: bool) -> None:
    """After `scaler.unscale_`, for clipping, the step does not unscale again."""
    plain, scaled = (_optimizer(kind, capturable=capturable) for _ in range(2))
    train(plain, 1)
    scaler = _scaler()
    give_gradients(_params(scaled))
    for param in _params(scaled):
        param.grad.mul_(4.0)
    scaler.unscale_(scaled)
    scaler.step(scaled)
    assert same(snapshot(scaled), snapshot(plain))


def test_scale_is_not_kept(kind: Any) -> None:
    """Afterwards nothing of the scaler is on the optimizer, and a plain step is a plain step."""
    optimizer = _optimizer(kind, capturable=True)
    train(optimizer, 1)
    before = set(vars(optimizer))
    _scaled_step(_scaler(), optimizer, 0, bad=float("inf"))
    assert set(vars(optimizer)) == before
    train(optimizer, 1)
    assert optimizer.param_groups[0]["step"] == 2


def test_first_step_with_infinities_changes_no_weight(kind: Any) -> None:
    """The state that it makes is as fresh, and the count is 0."""
    optimizer = _optimizer(kind, capturable=True, use_ema=True)
    weights = [param.detach().clone() for param in _params(optimizer)]
    _scaled_step(_scaler(), optimizer, 0, bad=float("nan"))
    assert same(_params(optimizer), weights)
    assert optimizer.param_groups[0]["step"] == 0
    for param, weight in zip(_params(optimizer), weights, strict=True):
        assert optimizer.state[param]["exp_avg"].count_nonzero() == 0
        assert torch.equal(optimizer.state[param]["ema"], weight)


def test_capturable_step_reads_nothing_back(case: tuple[Any, dict[str, Any]]) -> None:
    """Once there is state, no value comes from the device, scaled or not; "raise" must read."""
    kind, options = case
    optimizer = _optimizer(kind, **{**options, "capturable": True})
    train(optimizer)
    optimizer.grad_scale, optimizer.found_inf = torch.tensor(4.0), torch.tensor(0.0)
    give_gradients(_params(optimizer), 9)
    if options.get("nonfinite") == "raise":
        with pytest.raises(AssertionError, match="a value was read"), NoSync():
            optimizer.step()
        return
    with NoSync():
        optimizer.step()
        del optimizer.grad_scale, optimizer.found_inf
        optimizer.step()
    assert optimizer.param_groups[0]["step"] == 5 // options.get("gradient_accumulation_steps", 1)


@pytest.mark.parametrize("value", [float("inf"), float("-inf"), float("nan")])
def test_propagate(kind: Any, value: float) -> None:
    """By default a weight with a bad gradient becomes NaN, as AdamW's does."""
    param = Parameter(torch.ones(4))
    optimizer = kind([param], lr=0.25, weight_decay=0.5)
    param.grad = torch.tensor([1.0, value, 1.0, 1.0])
    optimizer.step()
    assert param.isnan().tolist() == [False, True, False, False]
    assert (param[0] < 1).item()


@pytest.mark.parametrize(("option", "value"), [("skip", float("-inf")), ("raise", float("nan"))])
def test_the_whole_step_is_left_out(
    case: tuple[Any, dict[str, Any]], option: str, value: float
) -> None:
    """With "skip" and "raise" not a bit changes, in no parameter; the next step goes on."""
    kind, options = case
    optimizer = _optimizer(kind, **{**options, "nonfinite": option})
    train(optimizer)
    before = snapshot(optimizer)
    give_gradients(_params(optimizer), 5)
    _params(optimizer)[2].grad[0, 0] = value
    if option == "skip":
        optimizer.step()
    else:
        message = "gradients are not finite: 1 of 4 parameters, parameter 2 of a group of 4"
        with pytest.raises(RuntimeError, match=message):
            optimizer.step()
    assert same(snapshot(optimizer), before)
    train(optimizer, 2)
    assert not same(snapshot(optimizer), before)


def test_error_has_the_names(kind: Any) -> None:
    """Where parameters have names, the error has them, and the way out."""
    optimizer = kind(model().named_parameters(), nonfinite="raise")
    give_gradients(_params(optimizer))
    _params(optimizer)[3].grad[0] = float("nan")
    with pytest.raises(RuntimeError, match=r"'1\.bias'; nothing was changed; nonfinite='skip'"):
        optimizer.step()


def test_one_group_that_skips_holds_back_all(kind: Any) -> None:
    """Groups step together or not at all."""
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = kind([{"params": a, "nonfinite": "skip"}, {"params": b}], lr=0.5)
    a.grad, b.grad = torch.tensor([1.0, float("inf")]), torch.ones(2)
    optimizer.step()
    assert [*a.tolist(), *b.tolist()] == [1.0] * 4
    assert [int(group["step"]) for group in optimizer.param_groups] == [0, 0]


class TestMetrics:
    """`step_metrics()` tells what the last step did."""

    def _metrics(self, optimizer: Any) -> dict[str, Tensor]:
        (found,) = optimizer.step_metrics()
        return dict(found)

    def test_first_call_switches_on(self, kind: Any) -> None:
        """It has nothing to tell yet; from then on there is one dict for each group."""
        params = [Parameter(torch.ones(2)) for _ in range(2)]
        optimizer = kind([{"params": param} for param in params])
        train(optimizer, 1)
        assert optimizer.step_metrics() == []
        train(optimizer, 1)
        found = optimizer.step_metrics()
        assert [set(each) for each in found] == [{"agreement", "scale", "skipped", "vanished"}] * 2
        values = [value for each in found for value in each.values()]
        assert all((v.dtype, v.shape) == (torch.float64, ()) for v in values)

    def test_recording_changes_nothing(self, case: tuple[Any, dict[str, Any]]) -> None:
        """The bits of weights and state are those of a run without it."""
        kind, options = case
        plain, watched = _optimizer(kind, **options), _optimizer(kind, **options)
        watched.step_metrics()
        train(plain)
        train(watched)
        assert same(snapshot(watched), snapshot(plain))

    def test_first_step_agrees(self, kind: Any) -> None:
        """A momentum of zero leaves the gradient's own signs; LionSF's scale is then 1."""
        optimizer = _optimizer(kind)
        optimizer.step_metrics()
        train(optimizer, 1)
        found = self._metrics(optimizer)
        assert {name: value.item() for name, value in found.items()} == {
            "agreement": 1.0, "scale": 1.0, "skipped": 0.0, "vanished": 0.0,
        }  # fmt: skip

    def test_half_agreement(self, kind: Any) -> None:
        """Where half of the momentum outweighs its gradient, agreement is .5, LionSF's scale 0."""
        param = Parameter(torch.ones(4))
        optimizer = kind([param], lr=0.25)
        optimizer.step_metrics()
        optimizer.init_state()
        optimizer.state[param]["exp_avg"].copy_(torch.tensor([1.0, 1.0, -1.0, -1.0]))
        param.grad = torch.ones(4)
        optimizer.step()
        found = self._metrics(optimizer)
        assert found["agreement"].item() == 0.5
        assert found["scale"].item() == (1.0 if kind is KINDS["lion"] else 0.0)

    def test_caution_is_counted(self) -> None:
        """Elements that got no update because they disagree count as skipped."""
        param = Parameter(torch.ones(4))
        optimizer = KINDS["lion"]([param], lr=0.25, cautious_factor=0.0)
        optimizer.step_metrics()
        optimizer.init_state()
        optimizer.state[param]["exp_avg"].copy_(torch.tensor([1.0, 1.0, 1.0, -1.0]))
        param.grad = torch.ones(4)
        optimizer.step()
        assert self._metrics(optimizer)["skipped"].item() == 0.25

    def test_skipped_step_is_counted(self, kind: Any) -> None:
        """A step that was left out skipped everything."""
        optimizer = _optimizer(kind, nonfinite="skip")
        optimizer.step_metrics()
        give_gradients(_params(optimizer))
        _params(optimizer)[0].grad[0, 0] = float("inf")
        optimizer.step()
        assert self._metrics(optimizer)["skipped"].item() == 1.0

    def test_vanished_updates_are_counted(self, kind: Any) -> None:
        """Near 1 a bfloat16 weight does not move by 1e-4; a residual catches that."""
        for rounding, expected in (("nearest", 1.0), ("split", 0.0)):
            param = Parameter(torch.ones(8, dtype=torch.bfloat16))
            optimizer = kind([param], lr=1e-4, rounding=rounding)
            optimizer.step_metrics()
            train(optimizer, 1)
            assert self._metrics(optimizer)["vanished"].item() == expected

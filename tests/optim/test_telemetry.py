"""Numbers about a step, and the warning that its updates vanish."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.nn import Parameter

from liontool.optim import Lion, LionSF


def _give(param: Parameter, *values: float) -> None:
    param.grad = torch.tensor(values, dtype=param.dtype)


def test_nothing_is_recorded_before_it_is_asked_for() -> None:
    """The first call switches the recording on."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param])
    _give(param, 1.0, 1.0)
    optimizer.step()
    assert optimizer.step_metrics() == []
    optimizer.step()
    assert len(optimizer.step_metrics()) == 1


def test_agreement_and_scale_by_hand() -> None:
    """Three of four updates agree: LionSF's scale is a half, its square a quarter."""
    param = Parameter(torch.zeros(4))
    optimizer = LionSF([param], lr=0.1, pow=2.0)
    optimizer.step_metrics()
    _give(param, 1.0, 1.0, 1.0, 1.0)
    optimizer.step()
    _give(param, 1.0, 1.0, 1.0, -0.01)
    optimizer.step()
    (metrics,) = optimizer.step_metrics()
    assert float(metrics["agreement"]) == 0.75
    assert float(metrics["scale"]) == 0.25
    assert float(metrics["skipped"]) == float(metrics["vanished"]) == 0


def test_scale_is_the_mean_over_the_elements() -> None:
    """A parameter of three elements counts three times one of one."""
    params = [Parameter(torch.zeros(3)), Parameter(torch.zeros(1))]
    optimizer = LionSF(params, lr=0.1)
    optimizer.step_metrics()
    _give(params[0], 1.0, 0.0, 0.0)
    _give(params[1], 1.0)
    optimizer.step()
    (metrics,) = optimizer.step_metrics()
    assert float(metrics["scale"]) == pytest.approx((3 * (1 / 3) + 1) / 4)
    assert float(metrics["agreement"]) == 0.5


def test_masked_updates_are_skipped() -> None:
    """With the full mask, those that disagree get no update."""
    param = Parameter(torch.zeros(4))
    optimizer = Lion([param], lr=0.1, cautious_factor=0.0)
    optimizer.step_metrics()
    for last in (1.0, -0.01):
        _give(param, 1.0, 1.0, 1.0, last)
        optimizer.step()
    assert float(optimizer.step_metrics()[0]["skipped"]) == 0.25


def test_a_skipped_step_is_skipped_whole() -> None:
    """A gradient that is not finite leaves every element without an update; none vanishes."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param], nonfinite="skip")
    optimizer.step_metrics()
    _give(param, 1.0, float("inf"))
    optimizer.step()
    (metrics,) = optimizer.step_metrics()
    assert (float(metrics["skipped"]), float(metrics["vanished"])) == (1, 0)


def test_a_step_held_by_a_flag_is_skipped() -> None:
    """A micro-step whose counter nobody reads gives no update."""
    param = Parameter(torch.ones(2))
    optimizer = Lion([param], gradient_accumulation_steps=2, capturable=True)
    optimizer.step_metrics()
    for skipped in (1, 0):
        _give(param, 1.0, 1.0)
        optimizer.step()
        (metrics,) = optimizer.step_metrics()
        assert (float(metrics["skipped"]), float(metrics["vanished"])) == (skipped, 0)


def test_vanished_updates_are_counted() -> None:
    """Of four bfloat16 weights, the one near zero still moves."""
    param = Parameter(torch.tensor([1.0, 1.0, 1.0, 1e-3], dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-4)
    optimizer.step_metrics()
    _give(param, 1.0, 1.0, 0.0, 1.0)
    optimizer.step()
    assert float(optimizer.step_metrics()[0]["vanished"]) == pytest.approx(2 / 3)


def test_metrics_are_tensors_of_each_group() -> None:
    """0-d float64 tensors, in the order of the groups, those without gradients too."""
    params = [Parameter(torch.ones(2)), Parameter(torch.ones(2))]
    optimizer = Lion([{"params": params[:1]}, {"params": params[1:]}])
    optimizer.step_metrics()
    _give(params[0], 1.0, -1.0)
    optimizer.step()
    for metrics in optimizer.step_metrics():
        assert list(metrics) == ["agreement", "scale", "skipped", "vanished"]
        assert all(each.dtype == torch.float64 and each.ndim == 0 for each in metrics.values())


def test_recording_does_not_change_the_step() -> None:
    """The same weights with and without."""
    weights = []
    for recording in (False, True):
        param = Parameter(torch.linspace(-1, 1, 7))
        optimizer = LionSF([param], lr=0.1, weight_decay=0.1)
        if recording:
            optimizer.step_metrics()
        for step in range(5):
            param.grad = torch.sin(torch.arange(7.0) + step)
            optimizer.step()
        weights.append(param.detach().clone())
    assert torch.equal(*weights)


def test_vanishing_updates_warn_once() -> None:
    """The first step of bfloat16 weights says that lr is too small for them; later ones do not."""
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-4)
    param.grad = torch.ones_like(param)
    with pytest.warns(UserWarning, match=r"100% of the updates of half-precision weights"):
        optimizer.step()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert torch.equal(param, torch.ones_like(param))


def test_a_warm_up_from_zero_warns_when_it_moves() -> None:
    """Steps with lr 0 tell nothing; the first other one does."""
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=0.0)
    param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.param_groups[0]["lr"] = 1e-4
    with pytest.warns(UserWarning, match="rounded away: lr is too small"):
        optimizer.step()


@pytest.mark.parametrize("options", [{"lr": 0.1}, {"lr": 1e-4, "rounding": "split"}], ids=str)
def test_updates_that_arrive_do_not_warn(options: dict[str, object]) -> None:
    """Neither a large lr nor a rounding that keeps the update gives a reason to."""
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Lion([param], **options)  # type: ignore[arg-type]
    param.grad = torch.ones_like(param)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


def test_skipped_steps_do_not_warn() -> None:
    """A first step that overflows says nothing of the lr."""
    param = Parameter(torch.full((8,), 1e-3, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=0.1, nonfinite="skip")
    param.grad = torch.full_like(param, float("inf"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        optimizer.step()
    assert optimizer.param_groups[0]["step"] == 0


def test_only_half_precision_weights_are_looked_at() -> None:
    """float32 weights beside them neither hide a stall nor make one."""
    stalled, fine = Parameter(torch.ones(80).bfloat16()), Parameter(torch.ones(1000))
    optimizer = Lion([stalled, fine], lr=1e-4)
    for param in (stalled, fine):
        param.grad = torch.ones_like(param)
    with pytest.warns(UserWarning, match="100% of the updates"):
        optimizer.step()


def test_the_warning_points_at_the_users_line() -> None:
    """Through a scheduler's wrapper too."""
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-4)
    torch.optim.lr_scheduler.ConstantLR(optimizer)
    param.grad = torch.ones_like(param)
    with pytest.warns(UserWarning, match="rounded away") as caught:
        optimizer.step()
    assert caught[0].filename == __file__


def test_a_warning_that_is_an_error_comes_after_the_step() -> None:
    """Weights, momentum and counter belong together when it is raised."""
    param = Parameter(torch.ones(8, dtype=torch.bfloat16))
    optimizer = Lion([param], lr=1e-4)
    param.grad = torch.ones_like(param)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="rounded away"):
            optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1

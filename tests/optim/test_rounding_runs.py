"""Whole runs on bfloat16 weights, with each rounding, beside their float32 twins."""

from __future__ import annotations

import copy
import importlib.util
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF
from liontool.optim.rounding import combined

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "rounding.py"
SHAPES = [(), (1,), (7, 9), (2, 3, 5, 4), (1003,)]
LOST = "of the updates of half-precision weights were rounded away"


def _picture() -> ModuleType:
    spec = importlib.util.spec_from_file_location("rounding_picture", PICTURE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


picture = _picture()


@pytest.fixture(params=[Lion, LionSF], ids=["lion", "lion_sf"])
def kind(request: pytest.FixtureRequest) -> Any:
    """Either optimizer."""
    return request.param


def weights_of_every_shape(dtype: torch.dtype = torch.bfloat16) -> list[Parameter]:
    """The same bfloat16 numbers each time, one tensor of them channels_last."""
    generator = torch.Generator().manual_seed(0)
    weights = [torch.randn(shape, generator=generator).bfloat16() for shape in SHAPES]
    weights[3] = weights[3].contiguous(memory_format=torch.channels_last)
    return [Parameter(weight.to(dtype)) for weight in weights]


def gradients(steps: int) -> Iterator[list[Tensor]]:
    """The same bfloat16 gradients each time, some of them zero."""
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        normal = [torch.randn(shape, generator=generator) for shape in SHAPES]
        yield [(grad * (grad.abs() > 0.3)).bfloat16() for grad in normal]


def run(optimizer: torch.optim.Optimizer, steps: int = 100) -> list[Tensor]:
    """Steps on given gradients; returns the weights in float32, residuals included."""
    params = optimizer.param_groups[0]["params"]
    for grads in gradients(steps):
        for param, grad in zip(params, grads, strict=True):
            param.grad = grad.to(param.dtype)
        optimizer.step()
    return [whole(optimizer, param) for param in params]


def whole(optimizer: torch.optim.Optimizer, param: Tensor) -> Tensor:
    """The weights in float32, residuals included."""
    residual = optimizer.state[param].get("residual")
    return param.detach().float() if residual is None else combined(param.detach(), residual)


def same_bits(left: list[Tensor], right: list[Tensor]) -> bool:
    """Equal as integers."""
    return all(
        torch.equal(a.view(torch.int32), b.view(torch.int32))
        for a, b in zip(left, right, strict=True)
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 1.0, "lr": 1e-3},
    "cautious": {"cautious_factor": 0.3, "maximize": True, "weight_decay": 0.1},
    "loop": {"foreach": False, "fused": False, "weight_decay": 0.1},
    "foreach": {"foreach": True, "weight_decay": 0.1},
    "accumulated": {"gradient_accumulation_steps": 3, "loss_scale_factor": 4.0, "clipnorm": 0.5},
    "averaged": {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7},
    "narrow momentum": {"state_dtype": torch.bfloat16},
}


@pytest.mark.parametrize("case", OPTIONS)
def test_split_is_float32(kind: Any, case: str) -> None:
    """On the same gradients, weight and residual are the float32 weight after every option."""
    options = {"lr": 1e-4, "state_dtype": torch.float32, **OPTIONS[case]}
    narrow = kind(weights_of_every_shape(), rounding="split", **options)
    twin = kind(weights_of_every_shape(torch.float32), **options)
    assert same_bits(run(narrow), run(twin))
    momenta = [[s["exp_avg"].float() for s in each.state.values()] for each in (narrow, twin)]
    assert same_bits(*momenta)


def test_a_network_learns_with_split_as_with_float32() -> None:
    """Every loss and every weight of the run in the picture is that of the float32 twin."""
    split, twin = picture.train("split", 300), picture.train(picture.TWIN, 300)
    assert split.history == twin.history
    assert same_bits(split.weights, twin.weights)
    assert twin.history[-1] < twin.history[0] / 5


def test_a_network_learns_with_stochastic_within_noise() -> None:
    """The loss stays beside that of the float32 twin."""
    stochastic, twin = picture.train("stochastic", 300), picture.train(picture.TWIN, 300)
    ratios = torch.tensor(stochastic.history) / torch.tensor(twin.history)
    assert (ratios.log().abs() < 0.1).all()
    assert stochastic.history != twin.history


def test_a_network_stalls_with_nearest() -> None:
    """Most weights never move, and the loss stays where the others only begin."""
    with pytest.warns(UserWarning, match=LOST):
        nearest = picture.train("nearest", 300)
    assert nearest.history[-1] > nearest.history[0] / 2
    with pytest.warns(UserWarning, match=LOST):
        began = picture.train("nearest", 1)
    still = [a == b for a, b in zip(nearest.weights, began.weights, strict=True)]
    assert torch.cat([each.flatten() for each in still]).double().mean() > 0.7


def test_weight_decay_survives_in_split() -> None:
    """2000 steps of it leave .8187, in the bits of float32."""
    split, twin = picture.decay("split"), picture.decay(picture.TWIN)
    assert same_bits(split.weights, twin.weights)
    assert split.weights[0][0].item() == pytest.approx((1 - 1e-4) ** 2000, rel=1e-4)


def test_weight_decay_survives_in_stochastic() -> None:
    """The mean is right within its own noise, and the noise is what such steps must make."""
    weights = picture.decay("stochastic", weights=4000).weights[0].double()
    assert abs(weights.mean() - (1 - 1e-4) ** 2000) < 4 * weights.std() / math.sqrt(4000)
    # A step of 2**-8 is taken as often as decay is due of it, about once in 43.
    assert weights.std() == pytest.approx(2**-8 * math.sqrt(2000 / 43), rel=0.2)


def test_weight_decay_is_lost_in_nearest() -> None:
    """Not one weight has changed after 2000 steps."""
    assert picture.decay("nearest").weights[0].eq(1).all()


def test_stochastic_follows_float32() -> None:
    """On the same gradients the weights are right on average, and near."""
    options = {"lr": 1e-4, "state_dtype": torch.float32, "weight_decay": 0.1}
    stochastic = run(Lion(weights_of_every_shape(), rounding="stochastic", **options))[-1]
    exact = run(Lion(weights_of_every_shape(torch.float32), **options))[-1]
    error = (stochastic - exact).double() / exact.abs()
    assert error.mean().abs() < 4 * error.std() / math.sqrt(error.numel())
    assert error.abs().max() > 2**-9
    assert error.abs().median() < 2**-6


def test_stochastic_is_equal_on_every_path(kind: Any) -> None:
    """Loop and foreach round alike."""
    paths = [{"foreach": False, "fused": False}, {"foreach": True}, {}]
    ends = [
        run(kind(weights_of_every_shape(), lr=1e-3, rounding="stochastic", **path), 20)
        for path in paths
    ]
    assert same_bits(ends[0], ends[1])
    assert same_bits(ends[0], ends[2])


def test_stochastic_does_not_depend_on_the_layout_in_memory() -> None:
    """Contiguous weights get the bits of channels_last ones."""
    contiguous = [Parameter(p.detach().contiguous()) for p in weights_of_every_shape()]
    assert not weights_of_every_shape()[3].is_contiguous()
    ends = [
        run(Lion(params, lr=1e-3, rounding="stochastic"), 20)
        for params in (weights_of_every_shape(), contiguous)
    ]
    assert torch.equal(ends[0][3], ends[1][3])


def test_stochastic_follows_its_seed() -> None:
    """The same seed gives the same run, another one another."""

    def end(seed: int) -> list[Tensor]:
        group = {"params": weights_of_every_shape(), "rounding_seed": seed}
        return run(Lion([group], lr=1e-3, rounding="stochastic"), 5)

    assert same_bits(end(1), end(1))
    assert not same_bits(end(1), end(2))


def test_parameters_have_noise_of_their_own() -> None:
    """Equal parameters with equal gradients drift apart, in one group and in two."""
    for of_two in ([0, 0], [0, 1]):
        params = [Parameter(torch.full((500,), 0.3, dtype=torch.bfloat16)) for _ in range(2)]
        groups = [{"params": [p for p, g in zip(params, of_two, strict=True) if g == i]}
                  for i in sorted(set(of_two))]  # fmt: skip
        optimizer = Lion(groups, lr=1e-4, rounding="stochastic")
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
        assert not torch.equal(*params)


@pytest.mark.parametrize("rounding", ["nearest", "split", "stochastic"])
def test_a_resumed_run_goes_on_in_the_same_bits(kind: Any, rounding: str) -> None:
    """Weights and state dict are all there is of a run."""
    options = {"lr": 1e-2, "weight_decay": 0.1, "rounding": rounding}
    first = kind(weights_of_every_shape(), **options)
    run(first, 10)
    params = [Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]]
    second = kind(params, **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    assert same_bits(run(second, 10), run(first, 10))


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_float32_weights_are_not_rounded(rounding: str) -> None:
    """Beside bfloat16 ones in the same group they move as ever, and keep no residual."""
    wide, narrow = Parameter(torch.randn(50)), Parameter(torch.randn(50).bfloat16())
    alone = Parameter(wide.detach().clone())
    optimizer, plain = Lion([wide, narrow], rounding=rounding), Lion([alone])
    for param in (wide, narrow, alone):
        param.grad = torch.ones_like(param)
    for _ in range(5):
        optimizer.step()
        plain.step()
    assert torch.equal(wide, alone)
    assert "residual" not in optimizer.state[wide]
    assert ("residual" in optimizer.state[narrow]) == (rounding == "split")


def _used(steps: int = 50) -> tuple[Parameter, Lion]:
    """A parameter with a residual of every size, and its optimizer."""
    torch.manual_seed(0)
    param = Parameter(torch.randn(1000).bfloat16())
    optimizer = Lion([param], lr=3e-4, weight_decay=0.1, rounding="split")
    for _ in range(steps):
        param.grad = torch.randn(1000).bfloat16()
        optimizer.step()
    assert optimizer.state[param]["residual"].count_nonzero() > 900
    return param, optimizer


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, 1e-40, 3.3e38, -3.3e38])
def test_weights_that_others_set_are_what_they_set(value: float) -> None:
    """Pruned or initialised anew beside an old residual: never NaN, and off by half a unit."""
    param, optimizer = _used()
    with torch.no_grad():
        param.fill_(value)
    optimizer.param_groups[0]["lr"] = 0.0
    optimizer.step()
    wide = whole(optimizer, param)
    assert wide.isfinite().all()
    assert torch.equal(param, torch.full_like(param, value))
    assert ((wide - param.float()).abs() <= max(abs(value) * 2**-8, 5e-41)).all()


def test_pruned_weights_learn_again() -> None:
    """After a mask the weights go on from zero, as those of float32 do."""
    param, optimizer = _used()
    with torch.no_grad():
        param.mul_(0)
    for _ in range(3):
        param.grad = torch.ones_like(param)
        optimizer.state[param]["exp_avg"].fill_(1)
        optimizer.step()
    assert whole(optimizer, param).tolist() == pytest.approx([-9e-4] * 1000, rel=1e-3)


def test_a_model_loaded_over_residuals_stays_itself() -> None:
    """Weights of another model are never NaN, and are exact once the residuals are reset."""
    torch.manual_seed(1)
    other = torch.nn.Linear(20, 50).bfloat16()
    model = torch.nn.Linear(20, 50).bfloat16()
    optimizer = Lion(model.parameters(), lr=1e-3, rounding="split")
    model(torch.ones(1, 20, dtype=torch.bfloat16)).sum().backward()
    optimizer.step()
    model.load_state_dict(other.state_dict())
    inexact = whole(optimizer, model.weight)
    assert torch.equal(inexact.bfloat16(), other.weight)
    assert not torch.equal(inexact, other.weight.float())
    optimizer.reset_residuals()
    assert torch.equal(whole(optimizer, model.weight), other.weight.float())


def test_resetting_without_residuals_does_nothing() -> None:
    """There need not be any."""
    param = Parameter(torch.ones(3))
    optimizer = Lion([param])
    optimizer.reset_residuals()
    param.grad = torch.ones(3)
    optimizer.step()
    optimizer.reset_residuals()
    assert set(optimizer.state[param]) == {"exp_avg"}


def test_a_weight_that_became_nan_stays_nan() -> None:
    """A gradient that is not finite shows in weight and residual, and nowhere else."""
    param, optimizer = _used()
    param.grad = torch.zeros_like(param)
    param.grad[3], param.grad[5] = math.nan, math.inf
    optimizer.step()
    assert param.isnan().nonzero().flatten().tolist() == [3, 5]
    assert optimizer.state[param]["residual"][[3, 5]].tolist() == [0, 0]


def test_a_skipped_step_leaves_the_residual(kind: Any) -> None:
    """With an infinite gradient and `nonfinite="skip"` weight and residual stay, bit for bit."""
    optimizer = kind(weights_of_every_shape(), lr=1e-3, rounding="split", nonfinite="skip")
    before = run(optimizer, 3)
    optimizer.param_groups[0]["params"][-1].grad[7] = math.inf
    optimizer.step()
    assert same_bits([whole(optimizer, param) for param in optimizer.state], before)


def test_averages_of_split_weights_are_those_of_float32() -> None:
    """Evaluating with the averages gives the weights back; overwriting with them is exact."""
    options = {"lr": 1e-3, "state_dtype": torch.float32, "use_ema": True}
    narrow = Lion(weights_of_every_shape(), rounding="split", **options)
    twin = Lion(weights_of_every_shape(torch.float32), **options)
    trained = [run(optimizer, 20) for optimizer in (narrow, twin)]
    with narrow.averaged_weights():
        shown = [param.detach().clone() for param in narrow.state]
    assert same_bits([whole(narrow, param) for param in narrow.state], trained[0])
    for optimizer in (narrow, twin):
        optimizer.finalize_variable_values()
    averages = [[whole(each, param) for param in each.state] for each in (narrow, twin)]
    assert same_bits(*averages)
    assert not same_bits(averages[0], trained[0])
    assert all(map(torch.equal, shown, (average.bfloat16() for average in averages[1])))


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_float16_is_refused(kind: Any, rounding: str) -> None:
    """Only bfloat16 has a rounding to choose."""
    param = Parameter(torch.ones(3, dtype=torch.float16))
    message = f"Invalid rounding: '{rounding}' for a float16 parameter, must be 'nearest'"
    with pytest.raises(ValueError, match=message):
        kind([param], rounding=rounding)
    optimizer = kind([Parameter(torch.ones(3))], rounding=rounding)
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": [param]})
    assert len(optimizer.param_groups) == 1


def test_an_unknown_rounding_is_refused(kind: Any) -> None:
    """The message has the three."""
    with pytest.raises(ValueError, match="Invalid rounding: 'up', choose from: nearest, split, st"):
        kind([Parameter(torch.ones(3))], rounding="up")


def _step(optimizer: torch.optim.Optimizer) -> list[warnings.WarningMessage]:
    """What a step on gradients of one warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for param in optimizer.param_groups[0]["params"]:
            param.grad = torch.ones_like(param)
        optimizer.step()
    return caught


def test_one_warning_when_updates_vanish(kind: Any) -> None:
    """The first step says how many and what to do, the following ones nothing."""
    optimizer = kind([Parameter(torch.ones(3, dtype=torch.bfloat16)) for _ in range(2)], lr=1e-4)
    (first,) = _step(optimizer)
    assert f"100% {LOST}" in str(first.message)
    assert "rounding='split'" in str(first.message)
    assert first.filename == __file__, "the line that called step"
    assert not _step(optimizer)


def test_the_warning_comes_though_state_was_there_before(kind: Any) -> None:
    """Whoever creates state first, as sharded checkpoints do, is told in the first step too."""
    optimizer = kind([Parameter(torch.ones(3, dtype=torch.bfloat16))], lr=1e-4)
    optimizer.init_state()
    assert [LOST in str(each.message) for each in _step(optimizer)] == [True]


@pytest.mark.parametrize(
    ("dtype", "options"),
    [
        (torch.float32, {"lr": 1e-4}),
        (torch.bfloat16, {"lr": 1e-4, "rounding": "split"}),
        (torch.bfloat16, {"lr": 1e-4, "rounding": "stochastic"}),
        (torch.bfloat16, {"lr": 1e-2}),
    ],
    ids=["float32", "split", "stochastic", "large lr"],
)
def test_no_warning_where_nothing_vanishes(
    dtype: torch.dtype, options: dict[str, Any], kind: Any
) -> None:
    """Weights that keep their updates are nobody's concern."""
    assert not _step(kind([Parameter(torch.ones(3, dtype=dtype))], **options))


@pytest.mark.filterwarnings("ignore:.*rounded away")
def test_the_picture_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The script writes a PNG."""
    pytest.importorskip("matplotlib")
    train, decay = picture.train, picture.decay
    monkeypatch.setattr(picture, "train", lambda rounding: train(rounding, 3))
    monkeypatch.setattr(picture, "decay", lambda rounding, weights=9: decay(rounding, weights, 3))
    picture.draw(tmp_path / "rounding.png")
    assert (tmp_path / "rounding.png").read_bytes().startswith(b"\x89PNG")

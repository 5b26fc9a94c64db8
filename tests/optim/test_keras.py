"""Lion's eight arguments of Keras beside the real keras.optimizers.Lion, after every micro-step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from liontool.optim import Lion, LionSF
from support.keras_lion import KerasLion, keras

pytestmark = pytest.mark.interop

SHAPES = [(), (1,), (63,), (5, 7)]
STEPS = 13  # not a multiple of a window
# Keras rounds Python numbers to float32, and takes some norms in it, for float64 weights too.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-8}
LR = 2.0**-6
KERAS_HAS_ONCE = ["global_clipnorm", "gradient_accumulation_steps", "use_ema", "ema_momentum"]

ALONE: dict[str, dict[str, Any]] = {
    "plain": {},
    "weight_decay": {"weight_decay": 0.25},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.25},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "loose clipnorm": {"clipnorm": 100.0},
    "loose global_clipnorm": {"global_clipnorm": 1000.0},
    "ema": {"use_ema": True, "ema_momentum": 0.5},
    "ema 0": {"use_ema": True, "ema_momentum": 0.0},
    "ema 1": {"use_ema": True, "ema_momentum": 1.0},
    "overwrite": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 3},
    "overwrite each": {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 1},
    "loss_scale_factor": {"loss_scale_factor": 128.0},
    "accumulation 2": {"gradient_accumulation_steps": 2},
    "accumulation 3": {"gradient_accumulation_steps": 3},
}
TOGETHER: dict[str, dict[str, Any]] = {
    f"accumulation {n} x overwrite {every}": {
        "gradient_accumulation_steps": n,
        "use_ema": True,
        "ema_momentum": 0.75,
        "ema_overwrite_frequency": every,
    }
    for n in (2, 3)
    for every in (None, 1, 2)
}
TOGETHER |= {
    f"all x {clip}": {
        "weight_decay": 0.25,
        clip: 0.125,
        "loss_scale_factor": 4.0,
        "gradient_accumulation_steps": 2,
        "use_ema": True,
        "ema_momentum": 0.9,
        "ema_overwrite_frequency": 2,
    }
    for clip in ("clipnorm", "clipvalue", "global_clipnorm")
}


class Beside:
    """Our Lion and Keras', which get the same gradients."""

    def __init__(self, dtype: torch.dtype = torch.float64, **options: Any) -> None:
        generator = torch.Generator().manual_seed(0)
        start = [torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in SHAPES]
        self.tolerance = TOLERANCE[dtype]
        self.generator = generator
        self.keras = KerasLion(start, lr=LR, **options)
        self.params = [torch.nn.Parameter(value.clone()) for value in start]
        self.ours = Lion(self.params, lr=LR, **options)

    def gradients(self) -> list[Tensor]:
        """Gradients of the size of the clips."""
        return [
            torch.randn(p.shape, generator=self.generator, dtype=torch.float64).to(p.dtype)
            for p in self.params
        ]

    def step(self, grads: Sequence[Tensor | None]) -> None:
        """One micro-step of both."""
        for param, grad in zip(self.params, grads, strict=True):
            param.grad = grad
        self.ours.step()
        self.keras.step(grads)

    def check(self) -> None:
        """Weights, momenta and averages of both are equal."""
        self.close(self.params, self.keras.weights())
        self.close(self.state("exp_avg"), self.keras.momenta())
        if self.ours.param_groups[0]["use_ema"]:
            self.close(self.state("ema"), self.keras.averages())

    def state(self, key: str) -> list[Tensor]:
        """State by name; a parameter that has none yet has zeros, as Keras makes them at once."""
        return [self.ours.state[p].get(key, torch.zeros_like(p)) for p in self.params]

    def close(self, ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
        """Both lists agree within the tolerance of the dtype."""
        for a, b in zip(ours, theirs, strict=True):
            torch.testing.assert_close(a.detach(), b, rtol=0, atol=self.tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("options", [*ALONE.values(), *TOGETHER.values()], ids=[*ALONE, *TOGETHER])
def test_every_micro_step_equals_keras(options: dict[str, Any], dtype: torch.dtype) -> None:
    """Weights, momentum and average are Keras' after each micro-step."""
    both = Beside(dtype, **options)
    for _ in range(STEPS):
        both.step(both.gradients())
        both.check()


def test_the_arguments_have_keras_names_and_defaults() -> None:
    """The eight arguments are spelled, and default, as in Keras."""
    theirs = inspect.signature(keras().optimizers.Lion.__init__).parameters
    names = [name for name in theirs if "clip" in name or "ema" in name]
    names += ["loss_scale_factor", "gradient_accumulation_steps"]
    assert len(names) == 8
    for ours in (Lion, LionSF):
        parameters = inspect.signature(ours).parameters
        assert {name: parameters[name].default for name in names} == {
            name: theirs[name].default for name in names
        }


@pytest.mark.parametrize(
    "options",
    [
        {"clipnorm": 1.0, "clipvalue": 1.0},
        {"clipnorm": 1.0, "global_clipnorm": 1.0},
        {"gradient_accumulation_steps": 1},
        {"use_ema": True, "ema_momentum": 1.5},
        {"use_ema": True, "ema_overwrite_frequency": 0.5},
    ],
    ids=str,
)
def test_what_keras_refuses_is_refused(options: dict[str, Any]) -> None:
    """Options that Keras takes for a mistake are a ValueError here too."""
    with pytest.raises(ValueError, match=r"clip|accumulation|ema"):
        KerasLion([torch.ones(2)], **options)
    with pytest.raises(ValueError, match=r"clip|accumulation|ema"):
        Lion([torch.nn.Parameter(torch.ones(2))], **options)


@pytest.mark.parametrize("frequency", [None, 2])
def test_finalize_variable_values_equals_keras(frequency: int | None) -> None:
    """At the end the weights become the average, and the average stays."""
    both = Beside(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=frequency)
    for _ in range(5):
        both.step(both.gradients())
    both.ours.finalize_variable_values()
    both.keras.optimizer.finalize_variable_values(both.keras.variables)
    both.check()
    both.close(both.params, both.keras.averages())


def test_finalize_variable_values_without_ema() -> None:
    """Without an average Keras does nothing; here a ValueError says that there is none."""
    both = Beside()
    both.step(both.gradients())
    both.keras.optimizer.finalize_variable_values(both.keras.variables)
    with pytest.raises(ValueError, match="Invalid use_ema: False, must be True"):
        both.ours.finalize_variable_values()
    both.check()


def test_averaged_weights_are_keras_averages() -> None:
    """Inside the block the weights are the average, after it they have the bits from before."""
    both = Beside(torch.float32, use_ema=True, ema_momentum=0.5)
    for _ in range(5):
        both.step(both.gradients())
    before = [param.detach().clone() for param in both.params]
    with both.ours.averaged_weights():
        both.close(both.params, both.keras.averages())
        assert not torch.equal(both.params[2], before[2])
    assert all(torch.equal(a, b) for a, b in zip(both.params, before, strict=True))
    both.step(both.gradients())
    both.check()


def test_averaged_weights_are_given_back_after_an_error() -> None:
    """An evaluation that fails does not leave the average in the model."""
    both = Beside(use_ema=True, ema_momentum=0.5)
    for _ in range(2):
        both.step(both.gradients())
    with pytest.raises(ZeroDivisionError), both.ours.averaged_weights():
        raise ZeroDivisionError
    both.check()


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize(
    "options", [ALONE["overwrite"], ALONE["clipnorm"], ALONE["global_clipnorm"]], ids=str
)
def test_a_missing_gradient_leaves_its_weight_alone(options: dict[str, Any]) -> None:
    """A variable without gradient has no decay and no update; its average goes on."""
    both = Beside(weight_decay=0.25, **options)
    for step in range(8):
        grads = both.gradients()
        missing = (step % 3, 3) if step >= 3 else ()
        both.step([None if i in missing else g for i, g in enumerate(grads)])
        both.check()


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("absent", [2, 3], ids=["first of two", "second of two"])
def test_a_missing_gradient_while_accumulating(absent: int) -> None:
    """The sum is divided by all micro-steps, and forgotten if the last has no gradient."""
    both = Beside(gradient_accumulation_steps=2, use_ema=True, ema_momentum=0.5)
    for step in range(8):
        grads: list[Tensor | None] = [*both.gradients()]
        if step == absent:
            grads[2] = None
        both.step(grads)
        both.check()


@pytest.mark.filterwarnings("ignore:Gradients do not exist for variables")
@pytest.mark.parametrize("name", ["ema", "overwrite", "accumulation 2"])
def test_groups_share_what_keras_has_once(name: str) -> None:
    """A group that has no gradient for a while is averaged and overwritten with the others."""
    options = {**ALONE[name], "weight_decay": 0.25}
    both = Beside(**options)
    groups = [{"params": both.params[:2]}, {"params": both.params[2:]}]
    both.ours = Lion(groups, lr=LR, **options)
    for step in range(10):
        idle = step in (0, 1, 4)
        both.step([None if idle and i >= 2 else g for i, g in enumerate(both.gradients())])
        both.check()


def test_no_average_of_a_run_without_accumulation() -> None:
    """Its N-th root forgets as fast per step, but counts most of a step for the weights before."""
    steps, momentum = 8, 0.9
    root = momentum ** (1 / steps)
    both = Beside(torch.float32, gradient_accumulation_steps=steps, use_ema=True, ema_momentum=root)
    before = average = plain = torch.empty(0)
    for window in range(10):
        for _ in range(steps):
            both.step(both.gradients())
        weight = both.params[3].detach().clone()
        if window == 0:
            before = average = plain = weight
        average = momentum * average + (root - momentum) * before + (1 - root) * weight
        plain = momentum * plain + (1 - momentum) * weight
        before = weight
    for found in (both.state("ema")[3], both.keras.averages()[3]):
        torch.testing.assert_close(found, average)
    assert (plain - average).abs().max() > LR / 2


@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_gradients_of_zero_are_clipped_to_zero(clip: str) -> None:
    """A norm of zero divides nothing by zero."""
    both = Beside(**{clip: 0.5})
    both.step(both.gradients())
    for _ in range(2):
        both.step([torch.zeros_like(param) for param in both.params])
        both.check()


def test_a_global_norm_that_is_not_finite_reaches_every_weight() -> None:
    """Keras makes every gradient NaN then, and so every momentum; here the weights show it."""
    both = Beside(global_clipnorm=1.0)
    grads = both.gradients()
    grads[2][5] = math.inf
    both.step(grads)
    assert all(momentum.isnan().all() for momentum in both.keras.momenta())
    assert all(momentum.isnan().all() for momentum in both.state("exp_avg"))
    assert all(weight.isfinite().all() for weight in both.keras.weights())  # torch.sign(nan) is 0
    assert all(weight.isnan().all() for weight in both.params)


def test_the_learning_rate_is_read_at_each_micro_step() -> None:
    """A rate that changes with each micro-step acts in the last of its window, as in Keras."""
    both = Beside(gradient_accumulation_steps=2, weight_decay=0.25)
    for step in range(8):
        lr = 2.0 ** -(4 + step)
        both.ours.param_groups[0]["lr"] = lr
        both.keras.optimizer.learning_rate = lr
        both.step(both.gradients())
        both.check()


@pytest.mark.parametrize("resumed_at", [4, 5])
def test_a_run_resumes_within_a_window(resumed_at: int) -> None:
    """What accumulates, the average and both counters are in the state dict."""
    options = TOGETHER["all x clipnorm"]
    both = Beside(**options)
    for step in range(STEPS):
        if step == resumed_at:
            saved = both.ours.state_dict()
            both.ours = Lion(both.params, lr=LR, **options)
            both.ours.load_state_dict(saved)
        both.step(both.gradients())
        both.check()


def _one_weight(steps: int, **options: Any) -> tuple[list[float], list[float]]:
    """Weight and average after each micro-step, from 1.0, with lr 0.1 and gradients of 1."""
    param = torch.nn.Parameter(torch.ones((), dtype=torch.float64))
    optimizer = Lion([param], lr=0.1, use_ema=True, **{"ema_momentum": 0.5, **options})
    weights, averages = [], []
    for _ in range(steps):
        param.grad = torch.ones_like(param)
        optimizer.step()
        weights.append(param.item())
        averages.append(optimizer.state[param]["ema"].item())
    return weights, averages


def test_overwriting_by_hand() -> None:
    """Every second step the weight is halfway back; the momentum is not touched by that."""
    weights, averages = _one_weight(4, ema_overwrite_frequency=2)
    assert weights == pytest.approx([0.9, 0.85, 0.75, 0.725])
    assert averages == pytest.approx([0.9, 0.85, 0.8, 0.725])


def test_the_average_moves_on_micro_steps() -> None:
    """While gradients only accumulate, the average still takes in the unchanged weight."""
    weights, averages = _one_weight(5, gradient_accumulation_steps=2)
    assert weights == pytest.approx([1.0, 0.9, 0.9, 0.8, 0.8])
    assert averages == pytest.approx([1.0, 0.9, 0.9, 0.85, 0.825])


def test_the_average_of_a_run_without_accumulation() -> None:
    """With the root of the momentum it is reached right before the next update."""
    every = _one_weight(4)[1]
    accumulated = _one_weight(9, gradient_accumulation_steps=2, ema_momentum=0.5**0.5)[1]
    assert accumulated[2::2] == pytest.approx(every)


def test_the_average_of_bfloat16_weights_is_wider() -> None:
    """Keras keeps it in the dtype of the weights, here it is float32."""
    start = [torch.ones(2, dtype=torch.bfloat16)]
    theirs = KerasLion(start, use_ema=True)
    param = torch.nn.Parameter(start[0])
    mine = Lion([param], use_ema=True)
    mine.init_state()
    assert theirs.averages()[0].dtype == torch.bfloat16
    assert mine.state[param]["ema"].dtype == torch.float32


def test_weights_are_overwritten_on_micro_steps() -> None:
    """In a window that overwrites, each micro-step does, also those without an update."""
    weights, _ = _one_weight(4, gradient_accumulation_steps=2, ema_overwrite_frequency=2)
    assert weights == pytest.approx([1.0, 0.9, 0.9, 0.85])
    weights, _ = _one_weight(7, gradient_accumulation_steps=2, ema_overwrite_frequency=3)
    assert weights[4] != weights[3]  # the fifth accumulates, and yet the weight moves


def test_the_momentum_is_not_reset_by_overwriting() -> None:
    """After the weights were set back the momentum is that of a run that never was."""
    overwritten = Beside(use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=1)
    plain = Beside()
    for _ in range(4):
        grads = overwritten.gradients()
        overwritten.step(grads)
        plain.step(grads)
    overwritten.close(overwritten.state("exp_avg"), plain.keras.momenta())
    assert not torch.equal(overwritten.params[2], plain.params[2])


@pytest.mark.parametrize("name", KERAS_HAS_ONCE)
def test_what_keras_has_once_is_one_value_for_all_groups(name: str) -> None:
    """Groups that differ in it are a ValueError that names it."""
    values = {"use_ema": True, "ema_momentum": 0.5}
    groups = [
        {"params": [torch.nn.Parameter(torch.ones(2))]},
        {"params": [torch.nn.Parameter(torch.ones(2))], name: values.get(name, 2)},
    ]
    with pytest.raises(ValueError, match=f"Invalid {name}: .* must be the same in all"):
        Lion(groups)

"""Every absolute learning rate is found: the remaining curve of every torch scheduler scales."""

from __future__ import annotations

import functools
import inspect
import warnings

import pytest
import torch
from torch.optim import lr_scheduler as S
from torch.optim.swa_utils import SWALR

from liontool.checkpoint import learning_rates
from liontool.checkpoint.model import Fields, ParamGroup
from liontool.convert.adamw_to_lion import adamw_to_lion
from liontool.convert.adamw_to_lion_sf import adamw_to_lion_sf, is_certain
from liontool.convert.settings import Settings
from liontool.optim import Lion
from support.torch_models import (
    optimizer_of,
    optimizer_state,
    ref,
    scheduler_of,
    scheduler_state,
    tensor,
)

RATIO = 3.7
SAVED_AT = 12
STEPS = 60


def half_life(epoch, *, steps):
    """A factor as the Trainer makes them: a module-level function under `functools.partial`."""
    return 0.5 ** (epoch / steps)


class Warmup:
    """A callable object, whose attributes LambdaLR saves."""

    def __init__(self, steps):
        self.steps = steps

    def __call__(self, epoch):
        return min(1.0, (epoch + 1) / self.steps)


class Doubling:
    """A custom scale of CyclicLR as an object."""

    def __call__(self, x):
        return 0.5**x


# name: (how to make it, whether its curve is in the file and can be held constant)
SCHEDULERS = {
    "LambdaLR": (lambda o: S.LambdaLR(o, lambda e: 0.97**e), False),
    "LambdaLR-partial": (lambda o: S.LambdaLR(o, functools.partial(half_life, steps=9)), False),
    "LambdaLR-object": (lambda o: S.LambdaLR(o, Warmup(20)), False),
    "MultiplicativeLR": (lambda o: S.MultiplicativeLR(o, lambda e: 0.95), False),
    "StepLR": (lambda o: S.StepLR(o, 7, 0.5), True),
    "MultiStepLR": (lambda o: S.MultiStepLR(o, [5, 20, 40], 0.3), True),
    "ConstantLR": (lambda o: S.ConstantLR(o, 0.25, 20), True),
    "LinearLR": (lambda o: S.LinearLR(o, 0.1, 0.7, 30), True),
    "ExponentialLR": (lambda o: S.ExponentialLR(o, 0.93), True),
    "PolynomialLR": (lambda o: S.PolynomialLR(o, 40, 1.7), True),
    "CosineAnnealingLR": (lambda o: S.CosineAnnealingLR(o, 15, 1e-4), True),
    "CosineAnnealingWarmRestarts": (
        lambda o: S.CosineAnnealingWarmRestarts(o, 5, 2, eta_min=2e-4),
        True,
    ),
    "OneCycleLR": (lambda o: S.OneCycleLR(o, [0.02, 0.05][: len(o.param_groups)], 80), True),
    "OneCycleLR-3-phases": (
        lambda o: S.OneCycleLR(
            o, 0.02, 80, three_phase=True, anneal_strategy="linear", cycle_momentum=False
        ),
        True,
    ),
    "CyclicLR": (lambda o: S.CyclicLR(o, 1e-3, 2e-2, 7, 5), True),
    "CyclicLR-exp": (
        lambda o: S.CyclicLR(o, 1e-3, 2e-2, 7, mode="exp_range", gamma=0.9, cycle_momentum=False),
        True,
    ),
    "CyclicLR-object": (
        lambda o: S.CyclicLR(o, 1e-3, 2e-2, 7, scale_fn=Doubling(), scale_mode="cycle"),
        False,
    ),
    "ReduceLROnPlateau": (
        lambda o: S.ReduceLROnPlateau(o, factor=0.5, patience=2, min_lr=5e-4, eps=1e-5),
        True,
    ),
    "ReduceLROnPlateau-list": (
        lambda o: S.ReduceLROnPlateau(
            o, factor=0.5, patience=2, min_lr=[5e-4, 1e-3][: len(o.param_groups)]
        ),
        True,
    ),
    "SequentialLR": (
        lambda o: S.SequentialLR(
            o, [S.LinearLR(o, 0.1, 1.0, 9), S.CosineAnnealingLR(o, 20, 1e-4)], [9]
        ),
        True,
    ),
    "SequentialLR-later": (
        lambda o: S.SequentialLR(
            o,
            [S.ConstantLR(o, 0.5, 9), S.CosineAnnealingLR(o, 9, 1e-4), S.ExponentialLR(o, 0.9)],
            [20, 35],
        ),
        True,
    ),
    "SequentialLR-nested": (
        lambda o: S.SequentialLR(
            o,
            [
                S.SequentialLR(
                    o, [S.LinearLR(o, 0.1, 1.0, 5), S.CosineAnnealingLR(o, 9, 1e-4)], [5]
                ),
                S.StepLR(o, 4),
            ],
            [25],
        ),
        True,
    ),
    "ChainedScheduler": (
        lambda o: S.ChainedScheduler([S.LinearLR(o, 0.2, 1.0, 20), S.ExponentialLR(o, 0.97)]),
        True,
    ),
    "ChainedScheduler-lambda": (
        lambda o: S.ChainedScheduler([S.LambdaLR(o, lambda e: 0.9**e), S.StepLR(o, 5)]),
        False,
    ),
    "SWALR": (lambda o: SWALR(o, 0.004, 25), True),
    "SWALR-linear": (lambda o: SWALR(o, 0.004, 25, anneal_strategy="linear"), True),
}

GROUPS = {"one": (0.01,), "two": (0.01, 0.003)}


def run(kind, make, lrs, tensor_lr=False):
    """An optimizer and a scheduler as a script makes them."""
    params = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": lr} for lr in lrs]
    if tensor_lr:
        for group in params:
            group["lr"] = torch.tensor(group["lr"], dtype=torch.float64)
    optimizer = kind(params)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return optimizer, make(optimizer)


def metric(step):
    """Improves for a while and then never again."""
    return max(1.0 - 0.1 * step, 0.5)


def curve(optimizer, scheduler, first, last):
    """The learning rates of steps `first` to `last`."""
    rates = []
    for step in range(first, last):
        for group in optimizer.param_groups:
            for param in group["params"]:
                param.grad = torch.ones_like(param)
        optimizer.step()
        if isinstance(scheduler, S.ReduceLROnPlateau):
            scheduler.step(metric(step))
        else:
            scheduler.step()
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
    return torch.tensor(rates, dtype=torch.float64)


def converted(rule, make, lrs, tensor_lr=False):
    """The curve that AdamW would have gone on with, and that of Lion from the converted state."""
    adamw, before = run(torch.optim.AdamW, make, lrs, tensor_lr)
    curve(adamw, before, 0, SAVED_AT)
    source = optimizer_of(adamw.state_dict(), before.state_dict())
    after = rule(source, Settings(RATIO)).optimizer
    lion, resumed = run(Lion, make, lrs, tensor_lr)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lion.load_state_dict(optimizer_state(after))
    resumed.load_state_dict(scheduler_state(after.schedulers[0]))
    now = torch.tensor([float(g["lr"]) for g in adamw.param_groups], dtype=torch.float64)
    going_on = curve(adamw, before, SAVED_AT, STEPS)
    return now, going_on, curve(lion, resumed, SAVED_AT, STEPS), after, resumed


def test_every_class_is_covered():
    """No scheduler of the installed torch is missing from this file."""
    classes = {
        name
        for name, item in vars(S).items()
        if inspect.isclass(item) and issubclass(item, S.LRScheduler) and not name.startswith("_")
    } - {"LRScheduler"}
    assert classes | {"SWALR"} == {name.split("-")[0] for name in SCHEDULERS}


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_remaining_curve(name, groups):
    """The curve goes on as AdamW's would have, divided by the ratio, past every turn."""
    _, expected, got, _, resumed = converted(adamw_to_lion, SCHEDULERS[name][0], GROUPS[groups])
    assert len(expected.unique(dim=0)) > 1 or name == "ConstantLR"
    torch.testing.assert_close(got, expected / RATIO, rtol=1e-12, atol=0)
    torch.testing.assert_close(torch.tensor(resumed.get_last_lr(), dtype=torch.float64), got[-1])


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["CosineAnnealingLR", "StepLR", "SequentialLR", "LinearLR"])
def test_tensor_rates(name):
    """Learning rates that are tensors stay tensors and scale alike."""
    _, expected, got, after, _ = converted(adamw_to_lion, SCHEDULERS[name][0], GROUPS["two"], True)
    torch.testing.assert_close(got, expected / RATIO, rtol=1e-12, atol=0)
    assert after.groups[0].fields["lr"].dtype == "float64"


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("groups", GROUPS)
@pytest.mark.parametrize("name", [name for name, (_, certain) in SCHEDULERS.items() if certain])
def test_held_curve(name, groups):
    """For LionSF the same class, loading the rewritten state, holds each group's rate for good."""
    now, _, got, after, _ = converted(adamw_to_lion_sf, SCHEDULERS[name][0], GROUPS[groups])
    assert all(is_certain(item) for item in learning_rates.walk(after.schedulers))
    torch.testing.assert_close(got, (now / RATIO).expand_as(got), rtol=1e-12, atol=0)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", [name for name, (_, certain) in SCHEDULERS.items() if not certain])
def test_uncertain_curve(name):
    """Where code has a say the state is said to be uncertain, and no field goes."""
    _, before = run(torch.optim.AdamW, SCHEDULERS[name][0], (0.01,))
    state = before.state_dict()
    _, _, _, after, _ = converted(adamw_to_lion_sf, SCHEDULERS[name][0], (0.01,))
    assert not all(is_certain(item) for item in learning_rates.walk(after.schedulers))
    assert scheduler_state(after.schedulers[0]).keys() == state.keys()


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_held_lambda_with_a_constant_function():
    """With a lambda of 1, which the note asks for, LambdaLR's rewritten state holds the rate."""
    adamw, before = run(torch.optim.AdamW, SCHEDULERS["LambdaLR-partial"][0], (0.01, 0.003))
    curve(adamw, before, 0, SAVED_AT)
    source = optimizer_of(adamw.state_dict(), before.state_dict())
    after = adamw_to_lion_sf(source, Settings(RATIO)).optimizer
    lion, resumed = run(Lion, lambda o: S.LambdaLR(o, lambda _: 1), (0.01, 0.003))
    lion.load_state_dict(optimizer_state(after))
    resumed.load_state_dict(scheduler_state(after.schedulers[0]))
    now = torch.tensor([g["lr"] for g in adamw.param_groups], dtype=torch.float64)
    got = curve(lion, resumed, SAVED_AT, STEPS)
    torch.testing.assert_close(got, (now / RATIO).expand_as(got), rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_described_by_its_class(name):
    """What `inspect` calls a scheduler is its class, with its position."""
    optimizer, scheduler = run(torch.optim.AdamW, SCHEDULERS[name][0], (0.01,))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        curve(optimizer, scheduler, 0, 3)
    found = learning_rates.describe(scheduler_of(scheduler.state_dict()))
    assert name.split("-")[0] in found.name
    assert found.position in (3, None)
    assert (found.position is None) == name.startswith("Chained")


def test_best_and_factors_are_left():
    """A metric, a threshold and a factor are no learning rates; a plateau's eps is one."""
    _, scheduler = run(torch.optim.AdamW, SCHEDULERS["ReduceLROnPlateau"][0], (0.01,))
    before = scheduler_of(scheduler.state_dict())
    after = learning_rates.scale_scheduler(before, 4.0)
    changed = {key for key in before.fields if after.fields[key] is not before.fields[key]}
    assert changed == {"min_lrs", "default_min_lr", "eps", "_last_lr"}
    assert after.fields["eps"] == 1e-5 / 4


def test_eps_of_a_stranger_is_left():
    """`eps` is an absolute learning rate in a plateau scheduler only."""
    stranger = scheduler_of({"eps": 1e-8, "patience": 3, "base_lrs": [1.0]})
    assert learning_rates.scale_scheduler(stranger, 4.0).fields["eps"] == 1e-8


def test_shared_tensors_are_scaled_once():
    """Two entries that are one tensor are each divided once, out of place."""
    shared = ref(torch.tensor(0.5, dtype=torch.float64))
    scaled = learning_rates.divided([shared, shared, 1.0, 2, None, "x", True], 2.0)
    assert [tensor(scaled[0]), tensor(scaled[1])] == [0.25, 0.25]
    assert scaled[2:] == [0.5, 1.0, None, "x", True]
    assert tensor(shared) == 0.5


def test_tensors_keep_dtype_and_shape():
    """A tensor of several rates keeps its form, and an integer tensor is left alone."""
    many = ref(torch.tensor([[1.0, 2.0]], dtype=torch.bfloat16))
    scaled = learning_rates.divided(many, 4.0)
    assert (scaled.dtype, scaled.shape) == ("bfloat16", (1, 2))
    assert tensor(scaled).tolist() == [[0.25, 0.5]]
    counter = ref(torch.tensor(7))
    assert learning_rates.divided(counter, 4.0) is counter


def test_multiplied():
    """Weight decay goes the other way, exactly."""
    assert learning_rates.multiplied([0.07, 0, None], 3.0) == [0.07 * 3.0, 0, None]
    assert tensor(learning_rates.multiplied(ref(torch.tensor(0.5)), 3.0)) == 1.5


def test_tuples_stay_tuples():
    """What a loader saw as a tuple it sees as a tuple again; what does not change is the same."""
    assert learning_rates.divided((1.0, 2.0), 4.0) == (0.25, 0.5)
    unchanged = [0.0, None]
    assert learning_rates.divided(unchanged, 4.0) is unchanged


def test_greedy_of_the_trainer():
    """The Trainer's metric-driven scheduler keeps rates of its own; nothing else of it changes."""
    keys = {"min_lrs": [1e-5], "max_lrs": [1e-2], "_init_lrs": [1e-3], "eps": 1e-8}
    state = {
        **keys,
        "_last_lr": [1e-3],
        "factor": 0.9,
        "patience": 3,
        "reset_start": 9,
        "best": 0.5,
    }
    scaled = scheduler_state(learning_rates.scale_scheduler(scheduler_of(state), 10.0))
    assert scaled["eps"] == pytest.approx(1e-9)
    assert scaled["max_lrs"] == pytest.approx([1e-3])
    assert (scaled["factor"], scaled["best"], scaled["patience"]) == (0.9, 0.5, 3)


def test_timm_scheduler():
    """timm keeps increments per step under `warmup_steps`."""
    state = {
        "base_values": [0.1], "param_group_field": "lr", "lr_min": 1e-4, "warmup_lr_init": 1e-5,
        "warmup_steps": [1e-3], "warmup_t": 5, "t_initial": 100,
    }  # fmt: skip
    scaled = scheduler_state(learning_rates.scale_scheduler(scheduler_of(state), 10.0))
    assert scaled["warmup_steps"] == pytest.approx([1e-4])
    assert scaled["lr_min"] == pytest.approx(1e-5)
    assert (scaled["warmup_t"], scaled["t_initial"]) == (5, 100)


def test_notes():
    """Code, unknown fields and an empty file are said in words that name the scheduler."""

    def note(state):
        return learning_rates.notes([scheduler_of(state, "schedulers.0")])

    assert "factor is code" in note({"base_lrs": [1.0], "lr_lambdas": [{}, {}]})[0]
    assert "keeps steps, low in the file" in note({"lr_lambdas": [{"steps": 3, "low": 1e-5}]})[0]
    assert "schedulers.0: its class is not known, and init_lr may" in note({"init_lr": 1.0})[0]
    assert "keeps no learning rate in the file" in note({"last_batch_iteration": 11})[0]
    assert "keeps no learning rate in the file" in note({True: 11, None: 1})[0]
    assert note({"gamma": 0.5, "base_lrs": [1.0]}) == ()


def test_cycled_betas():
    """The values between which beta1 is moved are read from the group."""
    optimizer, scheduler = run(torch.optim.AdamW, SCHEDULERS["OneCycleLR"][0], (0.01,))
    model = optimizer_of(optimizer.state_dict(), scheduler.state_dict())
    assert learning_rates.cycled_betas(model.groups[0], model.schedulers) == (0.85, 0.95)
    assert learning_rates.cycled_betas(ParamGroup(Fields({}), ()), model.schedulers) is None
    assert learning_rates.cycled_betas(model.groups[0], ()) is None

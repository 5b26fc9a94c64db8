"""The tables of keys are what the optimizers really save."""

from __future__ import annotations

import inspect
import warnings

import pytest
import torch

from liontool.convert.adamw_to_lion import adamw_to_lion, recognised
from liontool.convert.settings import Settings
from liontool.states import ADAMW, LIONS, lion_of, recognise
from support.torch_models import optimizer_of, optimizer_state

OPTIMIZERS = sorted(
    name
    for name, item in vars(torch.optim).items()
    if inspect.isclass(item) and issubclass(item, torch.optim.Optimizer) and name != "Optimizer"
)


def stepped(optimizer_class, shape=(4, 3), steps=3, dtype=torch.float32, **options):
    """An optimizer of one matrix after a few steps."""
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(shape).to(dtype))
    optimizer = optimizer_class([param], lr=0.01, **options)
    for _ in range(steps):
        grad = torch.randn(shape).to(dtype)
        param.grad = grad.to_sparse() if optimizer_class is torch.optim.SparseAdam else grad
        optimizer.step(lambda: (param.grad * param).sum().item())
    return param, optimizer


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_torch_optimizer(name):
    """Each optimizer that torch has is told by its own name from what it saves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, optimizer = stepped(getattr(torch.optim, name))
    found = recognised(optimizer_of(optimizer.state_dict()))
    assert found.kind == name
    assert not found.assumed
    assert bool(found.differing) == (name not in ("Adam", "AdamW"))


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_torch_optimizer_before_its_first_step(name):
    """Groups alone never make another optimizer pass for AdamW."""
    _, optimizer = stepped(getattr(torch.optim, name), steps=0)
    assert recognised(optimizer_of(optimizer.state_dict())).is_adam == (name in ("Adam", "AdamW"))


@pytest.mark.parametrize(
    "options",
    [
        {"amsgrad": True},
        {"foreach": True},
        {"fused": True},
        {"maximize": True},
        {"differentiable": False},
        {"betas": (0.95, 0.98), "eps": 1e-6, "weight_decay": 0.0},
        {"lr_tensor": True},
    ],
    ids=lambda options: next(iter(options)),
)
def test_adamw_in_all_forms(options):
    """Options do not hide AdamW."""
    options = dict(options)
    _, optimizer = stepped(
        torch.optim.AdamW, **{k: v for k, v in options.items() if k != "lr_tensor"}
    )
    if "lr_tensor" in options:
        optimizer.param_groups[0]["lr"] = torch.tensor(0.01)
    assert recognised(optimizer_of(optimizer.state_dict())).kind == "AdamW"


def adamw_group(**more):
    return {
        **dict.fromkeys(ADAMW.group | ADAMW.group_extra),
        "decoupled_weight_decay": True,
        **more,
    }


def test_old_torch_is_assumed():
    """Without the mark of torch 2.7 AdamW is an assumption, with it Adam is told from AdamW."""
    old = dict.fromkeys(("lr", "betas", "eps", "weight_decay", "amsgrad", "params"))
    state = [{"step", "exp_avg", "exp_avg_sq"}]
    assert recognise([old], state).assumed
    assert recognise([{**old, "decoupled_weight_decay": False}], state).kind == "Adam"
    assert not recognise([{**old, "decoupled_weight_decay": True}], state).assumed


@pytest.mark.parametrize(
    "key", ["name", "lr_scale", "initial_lr", "param_names", "swa_lr", "my_own"]
)
def test_user_keys_are_fine(key):
    """Keys of schedulers and users say nothing about the optimizer."""
    found = recognise([adamw_group(**{key: 1})], [{"step", "exp_avg", "exp_avg_sq"}])
    assert found.kind == "AdamW"


def test_empty_states_and_groups():
    """Parameters without state and mixed amsgrad groups are still AdamW."""
    states = [set(), {"step", "exp_avg", "exp_avg_sq"}]
    states.append({"step", "exp_avg", "exp_avg_sq", "max_exp_avg_sq"})
    assert recognise([adamw_group(), adamw_group()], states).kind == "AdamW"


LOOK_ALIKES = {
    "AdamW (transformers)": (
        "lr betas eps weight_decay correct_bias",
        "step exp_avg exp_avg_sq",
        "groups have 'correct_bias'; groups lack 'amsgrad'",
    ),
    "Lamb": (
        "lr bias_correction betas eps weight_decay grad_averaging max_grad_norm trust_clip "
        "always_adapt caution decoupled_decay step",
        "exp_avg exp_avg_sq",
        "state lacks 'step'",
    ),
    "Adan": (
        "lr betas eps weight_decay no_prox foreach step",
        "exp_avg exp_avg_diff exp_avg_sq neg_pre_grad",
        "state has 'exp_avg_diff', 'neg_pre_grad'",
    ),
    "Adafactor (transformers)": (
        "lr eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step "
        "warmup_init",
        "step RMS exp_avg exp_avg_sq_row exp_avg_sq_col",
        "state has 'RMS', 'exp_avg_sq_col', 'exp_avg_sq_row'",
    ),
    "AdamW (timm)": (
        "lr betas eps weight_decay amsgrad foreach maximize capturable caution",
        "step exp_avg exp_avg_sq",
        "groups have 'caution'",
    ),
    "unknown": ("lr betas eps weight_decay amsgrad", "step exp_avg exp_avg_sq shadow", "'shadow'"),
}


@pytest.mark.parametrize("kind", LOOK_ALIKES)
def test_look_alikes(kind):
    """Optimizers with Adam's moments and other rules are told by the keys that differ."""
    group, state, differing = LOOK_ALIKES[kind]
    found = recognise([dict.fromkeys(group.split())], [set(state.split())])
    assert found.kind == kind
    assert differing in "; ".join(found.differing)


def test_unknown_package():
    """An unknown package is answered with the nearest name and all of them."""
    with pytest.raises(
        ValueError, match=r"unknown package 'lion_pytorch', did you mean 'lion-pytorch'\?"
    ):
        lion_of("lion_pytorch")
    with pytest.raises(ValueError, match="choose from: liontool, lion-pytorch, lion-sf, timm"):
        lion_of("xyz")


def foreign(package):
    """The class that a package is loaded with, where it is installed."""
    if package == "liontool":
        return pytest.importorskip("liontool.optim").Lion
    module = {"lion-pytorch": "lion_pytorch", "optimi": "optimi"}.get(package, "pytorch_optimizer")
    return pytest.importorskip(module).Lion


@pytest.mark.interop
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("package", ["liontool", "lion-pytorch", "optimi", "pytorch-optimizer"])
def test_packages_load_and_step(package, dtype):
    """Each installed Lion loads the converted state, keeps the momentum and steps as Lion does."""
    lion_class = foreign(package)
    before = stepped(torch.optim.AdamW, dtype=dtype, steps=60, weight_decay=0.1)[1].state_dict()
    change = adamw_to_lion(optimizer_of(before), Settings(4.0, package=package, momentum="scaled"))
    param = torch.nn.Parameter(torch.ones(4, 3, dtype=dtype))
    lion = lion_class([param], lr=0.5)
    lion.load_state_dict(optimizer_state(change.optimizer))
    moment = lion.state[param]["exp_avg"].clone()
    assert moment.count_nonzero() == 12
    param.grad = torch.full_like(param, 1e-3)
    mixed = 0.9 * moment.double() + 0.1 * param.grad.double()
    lion.step()
    expected = 1 - 0.0025 * 0.4 - 0.0025 * mixed.sign()
    torch.testing.assert_close(
        param.detach().double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 0.01
    )
    torch.testing.assert_close(
        lion.state[param]["exp_avg"].double(),
        0.99 * moment.double() + 0.01 * param.grad.double(),
        rtol=1e-2 if dtype == torch.bfloat16 else 1e-5,
        atol=1e-8,
    )


@pytest.mark.interop
@pytest.mark.parametrize("package", ["liontool", "lion-pytorch", "optimi", "pytorch-optimizer"])
def test_packages_save_what_the_tables_say(package):
    """What an installed Lion saves is told as a Lion."""
    _, lion = stepped(foreign(package))
    found = recognised(optimizer_of(lion.state_dict()))
    assert found.kind.startswith("Lion")


@pytest.mark.interop
@pytest.mark.parametrize("package", ["liontool", "optimi"])
def test_decoupled_decay_in_groups(package):
    """Where the groups can say so, the decay does without lr, and a step takes off as much."""
    lion_class = foreign(package)
    _, adamw = stepped(torch.optim.AdamW, steps=30, weight_decay=0.1)
    state = adamw.state_dict()
    state["param_groups"][0]["initial_lr"] = 0.02  # the run is at half its highest rate
    settings = Settings(4.0, package=package, momentum="zeros", decay="decoupled")
    change = adamw_to_lion(optimizer_of(state), settings)
    param = torch.nn.Parameter(torch.ones(4, 3))
    lion = lion_class([param], lr=1.0)
    lion.load_state_dict(optimizer_state(change.optimizer))
    param.grad = torch.zeros_like(param)
    lion.step()
    torch.testing.assert_close(param.detach(), torch.full((4, 3), 1 - 0.01 * 0.1))


def test_tables_are_consistent():
    """Every package has a target, and only one of them is ours."""
    assert [name for name, lion in LIONS.items() if lion.horizon] == ["liontool"]
    assert all(set(lion.targets) <= {"lion", "lion-sf"} for lion in LIONS.values())
    assert all(lion.package == name for name, lion in LIONS.items())

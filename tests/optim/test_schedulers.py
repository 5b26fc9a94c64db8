"""Every scheduler of torch drives both Lions, by a float lr and by a tensor."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.nn import Parameter
from torch.optim import lr_scheduler as schedulers
from torch.optim.swa_utils import SWALR

from support.lions import KINDS, plain, same

SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: schedulers.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: schedulers.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: schedulers.StepLR(o, 2),
    "MultiStepLR": lambda o: schedulers.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedulers.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: schedulers.LinearLR(o),
    "ExponentialLR": lambda o: schedulers.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: schedulers.SequentialLR(
        o, [schedulers.LinearLR(o), schedulers.ExponentialLR(o, 0.9)], [2]
    ),
    "CosineAnnealingLR": lambda o: schedulers.CosineAnnealingLR(o, 6),
    "ChainedScheduler": lambda o: schedulers.ChainedScheduler(
        [schedulers.StepLR(o, 2), schedulers.ExponentialLR(o, 0.9)]
    ),
    "ReduceLROnPlateau": lambda o: schedulers.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: schedulers.CyclicLR(o, 1e-3, 1e-2, step_size_up=3, cycle_momentum=False),
    "CyclicLR with momentum": lambda o: schedulers.CyclicLR(o, 1e-3, 1e-2, step_size_up=3),
    "CosineAnnealingWarmRestarts": lambda o: schedulers.CosineAnnealingWarmRestarts(o, 3),
    "OneCycleLR": lambda o: schedulers.OneCycleLR(o, 1e-2, total_steps=9, cycle_momentum=False),
    "OneCycleLR with momentum": lambda o: schedulers.OneCycleLR(o, 1e-2, total_steps=9),
    "PolynomialLR": lambda o: schedulers.PolynomialLR(o, 6),
    "SWALR": lambda o: SWALR(o, 1e-4, anneal_epochs=3),
}

STEPS = 8


@pytest.fixture(params=[False, True], ids=["float", "tensor"])
def lr(request: pytest.FixtureRequest) -> Any:
    """A first lr."""
    return torch.tensor(1e-2, dtype=torch.float64) if request.param else 1e-2


def _step(optimizer: Any, scheduler: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    (param,) = optimizer.param_groups[0]["params"]
    param.grad = torch.randn(param.shape, generator=generator)
    optimizer.step()
    scheduler.step(*([1.0] if isinstance(scheduler, schedulers.ReduceLROnPlateau) else []))


def _copied(group: dict[str, Any]) -> dict[str, Any]:
    return {name: plain(value) for name, value in group.items() if name != "params"}


def test_the_table_is_complete() -> None:
    """A scheduler that a new torch brings is tried here too."""
    found = {
        name
        for name, each in vars(schedulers).items()
        if inspect.isclass(each) and issubclass(each, schedulers.LRScheduler)
    }
    found |= set(schedulers.__all__)
    missing = {name for name in found if not name.startswith("_")} - {"LRScheduler"}
    assert missing <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler(kind: Any, name: str, lr: Any) -> None:
    """It moves the lr, in the form that it has, as it moves AdamW's, and the weights follow."""
    ours, adamw = Parameter(torch.ones(3)), Parameter(torch.ones(3))
    optimizers = [
        each([param], lr=deepcopy(lr)) for each, param in ((kind, ours), (torch.optim.AdamW, adamw))
    ]
    chosen = [SCHEDULERS[name](optimizer) for optimizer in optimizers]
    seen = set()
    for seed in range(STEPS):
        before = ours.detach().clone()
        step_size = float(optimizers[0].param_groups[0]["lr"])
        for optimizer, scheduler in zip(optimizers, chosen, strict=True):
            _step(optimizer, scheduler, seed)
        if kind is KINDS["lion"]:
            torch.testing.assert_close(
                (before - ours).abs().detach(), torch.full((3,), step_size), rtol=1e-5, atol=1e-7
            )
        groups = [optimizer.param_groups[0] for optimizer in optimizers]
        assert type(groups[0]["lr"]) is type(lr)
        assert float(groups[0]["lr"]) == float(groups[1]["lr"])
        seen.add(float(groups[0]["lr"]))
    assert len(seen) > 1


@pytest.mark.parametrize("name", SCHEDULERS)
def test_resumed_schedule(kind: Any, name: str, lr: Any) -> None:
    """Optimizer and scheduler that were saved in the middle go on alike, with the same bits."""
    optimizer = kind([Parameter(torch.ones(3))], lr=deepcopy(lr), weight_decay=0.1)
    scheduler = SCHEDULERS[name](optimizer)
    for seed in range(3):
        _step(optimizer, scheduler, seed)
    weight = optimizer.param_groups[0]["params"][0].detach().clone()
    twin = kind([Parameter(weight)], lr=deepcopy(lr))
    twins = SCHEDULERS[name](twin)
    twins.load_state_dict(deepcopy(scheduler.state_dict()))
    twin.load_state_dict(deepcopy(optimizer.state_dict()))
    for seed in range(3, STEPS):
        _step(optimizer, scheduler, seed)
        _step(twin, twins, seed)
    first, second = (each.param_groups[0] for each in (optimizer, twin))
    assert _copied(first) == _copied(second)
    assert same(first["params"], second["params"])


@pytest.mark.parametrize("name", ["CyclicLR with momentum", "OneCycleLR with momentum"])
def test_momentum_cycles_as_beta1(kind: Any, name: str) -> None:
    """`betas[0]` goes to and fro, `betas[1]` stays, and the update mixes by the new value."""
    optimizer = kind([Parameter(torch.ones(3))], lr=1e-2)
    scheduler = SCHEDULERS[name](optimizer)
    group = optimizer.param_groups[0]
    seen = set()
    for seed in range(STEPS):
        _step(optimizer, scheduler, seed)
        seen.add(group["betas"][0])
        assert group["betas"][1] == 0.99
    assert len(seen) > 2
    group.update(lr=0.5, betas=(0.0, 0.99))
    (param,) = group["params"]
    before, param.grad = param.detach().clone(), -optimizer.state[param]["exp_avg"].sign()
    optimizer.step()
    assert torch.equal((before - param).sign(), param.grad.sign())


def test_initial_lr_is_left_to_schedulers(kind: Any) -> None:
    """They overwrite `initial_lr`; decoupled decay stays relative to `reference_lr`."""
    weight = Parameter(torch.ones(3))
    optimizer = kind([weight], lr=0.5, weight_decay=0.25, decoupled_weight_decay=True)
    schedulers.OneCycleLR(optimizer, 10.0, total_steps=9)
    group = optimizer.param_groups[0]
    assert group["reference_lr"] == 0.5
    assert group["initial_lr"] == pytest.approx(0.4)
    group["lr"] = 0.5
    weight.grad = torch.zeros(3)
    optimizer.step()
    assert weight.tolist() == [0.75] * 3

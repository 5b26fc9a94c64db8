"""The script that a conversion prints, run: what it builds decays as AdamW did."""

from __future__ import annotations

import importlib
import importlib.util

import pytest
import torch

from liontool import convert_checkpoint
from liontool.states import LIONS
from support.plain_runs import RATIO, SCHEDULERS, save

WEIGHT_DECAY = 0.1
RATES = {"one group": (1e-3,), "falling": (1e-3, 1e-4), "rising": (1e-4, 1e-3)}
SCHEDULES = {
    "linear": lambda o, rates: SCHEDULERS.LinearLR(o, 0.5, 1.0, total_iters=60),
    "one cycle": lambda o, rates: SCHEDULERS.OneCycleLR(
        o, list(rates), total_steps=100, cycle_momentum=False
    ),
}
CHOICES = [
    (package, to, decay)
    for package, lion in LIONS.items()
    for to in lion.targets
    for decay in ("scaled", "kept", "decoupled")
    if decay != "decoupled" or lion.can_decouple
]


def parameters(rates):
    """Groups as a script makes them, in double precision so that a decay can be read off."""
    return [{"params": [torch.nn.Parameter(torch.ones(4, dtype=torch.float64))]} for _ in rates]


def adamw(rates, schedule):
    """AdamW in mid-schedule, and that."""
    groups = [{**group, "lr": lr} for group, lr in zip(parameters(rates), rates, strict=True)]
    optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY)
    scheduler = SCHEDULES[schedule](optimizer, rates)
    torch.manual_seed(0)
    for _ in range(30):
        for group in groups:
            group["params"][0].grad = torch.randn(4, dtype=torch.float64)
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def pasted(script, rates):
    """The optimizer that the script makes, in a user's program that has the rest."""

    class Any:
        def load_state_dict(self, state):
            assert "base_lrs" in state or "_schedule_phases" in state

    groups = parameters(rates)
    model = torch.nn.ParameterList(groups[0]["params"])
    program = {"model": model, "param_groups": groups, "Any": Any}
    exec(script.replace("= ...  #", "= Any()  #"), program)
    return program["optimizer"]


def shrinkage(optimizer):
    """What one step without gradient and momentum takes off a weight of 1, by group."""
    params = [group["params"][0] for group in optimizer.param_groups]
    for param in params:
        optimizer.state[param]["exp_avg"].zero_()
        param.data.fill_(1)
        param.grad = torch.zeros_like(param)
    optimizer.step()
    return [1 - float(param[0].detach()) for param in params]


def can_import(line):
    package, name = line.split()[1], line.split()[3]
    if importlib.util.find_spec(package.split(".")[0]) is None:
        return False
    return hasattr(importlib.import_module(package), name)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(("package", "to", "decay"), CHOICES)
def test_decay(tmp_path, package, to, decay, schedule):
    """Each step takes lr * wd of AdamW off the weights; a kept decay a ratio times less."""
    if not can_import(LIONS[package].imports[to]):
        pytest.skip("not installed")
    share = 1 / RATIO if decay == "kept" else 1.0
    for name, rates in RATES.items():
        optimizer, scheduler = adamw(rates, schedule)
        value = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        path = save(value, tmp_path / f"{name}.pt")
        report = convert_checkpoint(path, lr_ratio=RATIO, package=package, to=to, decay=decay)
        lion = pasted(report.script[0], rates)
        expected = [group["lr"] * WEIGHT_DECAY * share for group in optimizer.param_groups]
        assert shrinkage(lion) == pytest.approx(expected, rel=1e-5)


def test_decay_of_several_optimizers(tmp_path):
    """Each optimizer is constructed with its own highest rate."""
    pytest.importorskip("lion_pytorch")
    runs = [adamw(rates, "one cycle")[0] for rates in ((1e-3,), (2e-2,))]
    path = save({"a": runs[0].state_dict(), "b": runs[1].state_dict()}, tmp_path / "two.pt")
    options = {"package": "lion-pytorch", "decay": "decoupled"}
    report = convert_checkpoint(path, lr_ratio=RATIO, **options)
    program = {name: parameters((1,))[0]["params"] for name in ("params", "params_2")}
    exec(report.script[0], program)
    for name, before in zip(("optimizer", "optimizer_2"), runs, strict=True):
        expected = before.param_groups[0]["lr"] * WEIGHT_DECAY
        assert shrinkage(program[name]) == pytest.approx([expected], rel=1e-5)

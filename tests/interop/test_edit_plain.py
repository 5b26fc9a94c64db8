"""Edited checkpoints of plain training loops go on under torch's own loaders."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler as S
from torch.optim.swa_utils import SWALR

import liontool
from liontool.optim import Lion

pytestmark = pytest.mark.interop

SAVED_AT, STEPS = 8, 20
RATES = (2e-3, 5e-4)


def linear(optimizer):
    return S.LinearLR(optimizer, 0.1, 1.0, total_iters=15)


def cosine(optimizer):
    return S.CosineAnnealingLR(optimizer, T_max=12, eta_min=1e-5)


def plateau(optimizer):
    return S.ReduceLROnPlateau(optimizer, factor=0.7, patience=1, min_lr=1e-5, eps=1e-6)


SCHEDULERS = {
    "LinearLR": linear,
    "CosineAnnealingLR": cosine,
    "CosineAnnealingWarmRestarts": lambda o: S.CosineAnnealingWarmRestarts(o, 7, eta_min=1e-5),
    "OneCycleLR": lambda o: S.OneCycleLR(o, [4e-3, 1e-3], total_steps=40),
    "CyclicLR": lambda o: S.CyclicLR(o, [1e-4, 2e-4], [4e-3, 1e-3], 5),
    "ReduceLROnPlateau": plateau,
    "StepLR": lambda o: S.StepLR(o, 5, 0.3),
    "MultiStepLR": lambda o: S.MultiStepLR(o, [4, 11], 0.3),
    "ConstantLR": lambda o: S.ConstantLR(o, 0.3, 12),
    "ExponentialLR": lambda o: S.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: S.PolynomialLR(o, 15, 2.0),
    "LambdaLR": lambda o: S.LambdaLR(o, lambda e: 0.95**e),
    "SequentialLR": lambda o: S.SequentialLR(o, [linear(o), cosine(o)], [12]),
    "ChainedScheduler": lambda o: S.ChainedScheduler([linear(o), S.ExponentialLR(o, 0.9)]),
    "SWALR": lambda o: SWALR(o, [1e-4, 2e-4], 12),
}


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def adamw(model, rates=RATES, **options):
    groups = [
        {"params": layer.parameters(), "lr": lr}
        for layer, lr in zip((model[0], model[2]), rates, strict=True)
    ]
    return torch.optim.AdamW(groups, weight_decay=0.1, **options)


def train(model, optimizer, scheduler, steps):
    """The rates of `steps` steps, of both groups."""
    rates = []
    for _ in range(steps):
        rates.append([float(group["lr"]) for group in optimizer.param_groups])
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step(*[1.0] * isinstance(scheduler, S.ReduceLROnPlateau))
    return rates


def saved(path, make, rates=RATES, steps=SAVED_AT, **options):
    """A file in the middle of a schedule, and the rates that were to come."""
    model = network()
    optimizer = adamw(model, rates, **options)
    scheduler = make(optimizer)
    train(model, optimizer, scheduler, steps)
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save({"model": model.state_dict(), **states}, path)
    return train(model, optimizer, scheduler, STEPS)


def resumed(path, make, rates=RATES, **options):
    """The rates of the steps that follow, and the optimizer."""
    state = torch.load(path, weights_only=True)
    model = network()
    model.load_state_dict(state["model"])
    optimizer = adamw(model, rates, **options)
    scheduler = make(optimizer)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return train(model, optimizer, scheduler, STEPS), optimizer


@pytest.mark.parametrize("name", SCHEDULERS)
def test_half(name, tmp_path):
    """After lr=x0.5 every rate to come is half of what it would have been, bit for bit."""
    wanted = saved(tmp_path / "run.pt", SCHEDULERS[name])
    report = liontool.edit_checkpoint(tmp_path / "run.pt", ["lr=x0.5"])
    rates, _ = resumed(report.output, SCHEDULERS[name])
    assert rates == [[rate / 2 for rate in step] for step in wanted]
    assert len({step[0] for step in rates}) > 1


@pytest.mark.parametrize("name", ["LinearLR", "CosineAnnealingLR", "LambdaLR", "SequentialLR"])
def test_absolute(name, tmp_path):
    """lr=V is the run that had V from the start, where its minimum moved alike."""
    base, new = 2e-3, 3e-4
    wanted = saved(tmp_path / "run.pt", SCHEDULERS[name], (base, base))
    report = liontool.edit_checkpoint(tmp_path / "run.pt", [f"lr={new}"])
    rates, optimizer = resumed(report.output, SCHEDULERS[name], (base, base))
    scaled = [[rate * (new / base) for rate in step] for step in wanted]
    assert rates == [pytest.approx(step, rel=1e-12) for step in scaled]
    assert {group["initial_lr"] for group in optimizer.param_groups} == {new}


def test_one_group(tmp_path):
    """groups.1.lr=V is the run whose second group had V from the start; the first is the same."""
    saved(tmp_path / "run.pt", SCHEDULERS["SequentialLR"], (2e-3, 5e-4))
    wanted = saved(tmp_path / "other.pt", SCHEDULERS["SequentialLR"], (2e-3, 1e-4))
    report = liontool.edit_checkpoint(tmp_path / "run.pt", ["groups.1.lr=1e-4"])
    (note,) = [notice for notice in report.notices if notice.id == "shared-minimum"]
    assert "eta_min of CosineAnnealingLR is one number for all groups and stays 1e-05" in note.text
    rates, _ = resumed(report.output, SCHEDULERS["SequentialLR"])
    # At the save the first schedule runs, a LinearLR, which has no minimum.
    assert rates == [pytest.approx(step, rel=1e-9) for step in wanted]


def test_one_cycle_peak(tmp_path):
    """The rate of a OneCycleLR is its peak."""
    make = SCHEDULERS["OneCycleLR"]
    saved(tmp_path / "run.pt", make)
    report = liontool.edit_checkpoint(tmp_path / "run.pt", ["lr=6e-4"])
    rates, optimizer = resumed(report.output, make)
    assert [group["max_lr"] for group in optimizer.param_groups] == [6e-4, 6e-4]
    assert max(rates)[0] == pytest.approx(6e-4, rel=0.01)
    assert "groups-differed" in [notice.id for notice in report.notices]


def test_end_of_cosine(tmp_path):
    """A rate that is 0 now has a base, and goes on from there."""
    make = lambda o: S.CosineAnnealingLR(o, T_max=SAVED_AT)  # noqa: E731
    wanted = saved(tmp_path / "run.pt", make, (1e-3, 1e-3))
    assert wanted[0] == [0.0, 0.0]
    report = liontool.edit_checkpoint(tmp_path / "run.pt", ["lr=2.5e-4"])
    rates, _ = resumed(report.output, make, (1e-3, 1e-3))
    assert rates == [pytest.approx([rate / 4 for rate in step], rel=1e-12) for step in wanted]


def test_tensor_rate(tmp_path):
    """A learning rate that is a tensor stays one, of its type."""
    rates = (torch.tensor(2e-3), torch.tensor(2e-3))
    saved(tmp_path / "run.pt", SCHEDULERS["ExponentialLR"], rates)
    report = liontool.edit_checkpoint(tmp_path / "run.pt", ["lr=3e-5"])
    _, optimizer = resumed(report.output, SCHEDULERS["ExponentialLR"], rates)
    group = torch.load(report.output, weights_only=True)["optimizer"]["param_groups"][0]
    assert torch.equal(group["initial_lr"], torch.tensor(3e-5))
    assert torch.is_tensor(optimizer.param_groups[0]["lr"])


def test_groups(tmp_path):
    """Decay, betas and switches are what torch loads, in the groups they were meant for."""
    saved(tmp_path / "run.pt", SCHEDULERS["StepLR"])
    words = ["weight_decay=x3", "groups.1.weight_decay=0", "betas=0.95,0.98", "eps=1e-6"]
    report = liontool.edit_checkpoint(tmp_path / "run.pt", [*words, "maximize=true"])
    _, optimizer = resumed(report.output, SCHEDULERS["StepLR"])
    first, second = optimizer.param_groups
    assert first["weight_decay"] == 0.1 * 3
    assert type(second["weight_decay"]) is float
    assert (first["betas"], first["eps"], first["maximize"]) == ((0.95, 0.98), 1e-6, True)


def test_lion(tmp_path):
    """In a state file of liontool the decay that is relative to the first lr stays what it was."""
    model = network()
    optimizer = Lion(model.parameters(), lr=1e-3, weight_decay=0.1, decoupled_weight_decay=True)
    train(model, optimizer, S.StepLR(optimizer, 5), 3)
    torch.save(optimizer.state_dict(), tmp_path / "lion.pt")
    report = liontool.edit_checkpoint(tmp_path / "lion.pt", ["lr=x0.5"])
    fresh = Lion(model.parameters(), lr=1e-3, decoupled_weight_decay=True)
    liontool.load_optimizer(report.output, fresh)
    (group,) = fresh.param_groups
    assert (group["lr"], group["reference_lr"], group["weight_decay"]) == (5e-4, 5e-4, 0.1)


def test_names_and_structure(tmp_path):
    """Named, renamed, cut and rounded, the rest still arrives at the parameters of its names."""
    saved(tmp_path / "run.pt", SCHEDULERS["StepLR"])
    path = tmp_path / "run.pt"
    words = (f"names:{path}", "rename:0=body.in", "rename:2=body.out", "drop:body.in.bias")
    report = liontool.edit_checkpoint(path, [*words, "exp_avg:bf16", "exp_avg_sq:bf16@*.weight"])
    before, after = torch.load(path, weights_only=True), torch.load(report.output)
    names = [name for group in after["optimizer"]["param_groups"] for name in group["param_names"]]
    assert names == list(after["model"]) == ["body.in.weight", "body.out.weight", "body.out.bias"]
    body = torch.nn.ModuleDict({"in": torch.nn.Linear(4, 8, bias=False)})
    body["out"] = torch.nn.Linear(8, 2)
    model = torch.nn.ModuleDict({"body": body})
    model.load_state_dict(after["model"])
    optimizer = torch.optim.AdamW(
        [{"params": list(layer.named_parameters(f"body.{n}"))} for n, layer in body.items()]
    )
    optimizer.load_state_dict(after["optimizer"])
    moments = [optimizer.state[param] for param in model.parameters()]
    kept = [before["optimizer"]["state"][i] for i in (0, 2, 3)]
    for moment, old in zip(moments, kept, strict=True):
        assert torch.equal(moment["exp_avg"], old["exp_avg"].bfloat16().float())
    shuffled = torch.optim.AdamW(
        [
            {"params": body["out"].parameters()},
            {"params": body["in"].parameters()},
        ]
    )
    liontool.load_optimizer(report.output, shuffled, model)
    assert torch.equal(shuffled.state[body["in"].weight]["exp_avg"], moments[0]["exp_avg"])
    assert [group["lr"] for group in shuffled.param_groups] == [
        group["lr"] for group in reversed(optimizer.param_groups)
    ]


@pytest.mark.parametrize("word", ["strip", "exp_avg:zeros"])
def test_without_moments(word, tmp_path):
    """A run without its momentum goes on, at the rates that were to come."""
    wanted = saved(tmp_path / "run.pt", SCHEDULERS["SequentialLR"])
    report = liontool.edit_checkpoint(tmp_path / "run.pt", [word])
    rates, optimizer = resumed(report.output, SCHEDULERS["SequentialLR"])
    assert rates == wanted
    steps = {int(state["step"]) for state in optimizer.state.values()}
    assert steps == {STEPS if word == "strip" else SAVED_AT + STEPS}


@pytest.mark.parametrize("words", [["lr=x0.5", "strip"], ["lr=x0.5", "exp_avg:bf16"]])
def test_state_file(words, tmp_path):
    """A state file of liontool, too, is loaded by its own loader after any word."""
    saved(tmp_path / "run.pt", SCHEDULERS["StepLR"], (1e-3, 1e-3))
    output = tmp_path / "state.safetensors"
    liontool.convert_checkpoint(tmp_path / "run.pt", lr_ratio=2, output=output)
    report = liontool.edit_checkpoint(output, words, in_place=True)
    model = network()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters()}]
    optimizer = Lion(groups, lr=1.0)
    liontool.load_optimizer(report.output, optimizer, model)
    lr = torch.load(tmp_path / "run.pt")["optimizer"]["param_groups"][0]["lr"]
    assert optimizer.param_groups[1]["lr"] == lr / 4
    assert bool(optimizer.state) == ("strip" not in words)
    train(model, optimizer, S.StepLR(optimizer, 5), 3)
    assert all(bool(state["exp_avg"].any()) for state in optimizer.state.values())

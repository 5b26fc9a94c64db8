"""A training loop's own checkpoint goes on under Lion, by the text that the command prints."""

from __future__ import annotations

import argparse

import pytest
import torch

import liontool
from liontool.optim import Lion
from support.runs import same_bits

pytestmark = pytest.mark.interop

RATIO, STEPS, SAVED_AT = 5, 20, 8


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def schedule(optimizer):
    return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12, eta_min=1e-5)


def train(model, optimizer, scheduler, steps):
    """The rates of `steps` steps."""
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        model(torch.ones(3, 4)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return rates


@pytest.fixture(params=["dict", "objects", "lists", "named"])
def saved(request, tmp_path):
    """A file as training loops write them: model, optimizer, scheduler, and whatever else."""
    model = network(0)
    params = model.named_parameters() if request.param == "named" else model.parameters()
    optimizer = torch.optim.AdamW(params, lr=1e-3, weight_decay=0.1)
    scheduler = schedule(optimizer)
    train(model, optimizer, scheduler, SAVED_AT)
    states = optimizer.state_dict(), scheduler.state_dict()
    tree = {
        "dict": {"model": model.state_dict(), "optimizer": states[0], "sched": states[1]},
        "objects": {
            "model": model.state_dict(),
            "args": argparse.Namespace(lr=1e-3),
            "run": argparse.Namespace(optim=states[0], sched=states[1]),
        },
        "lists": {"model": model.state_dict(), "optims": [states[0]], "scheds": (states[1],)},
        "named": {"model": model.state_dict(), "training": {"o": states[0], "s": states[1]}},
    }[request.param]
    torch.save({**tree, "step": SAVED_AT}, tmp_path / "adamw.pt")
    momenta = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    return tmp_path / "adamw.pt", momenta, train(model, optimizer, scheduler, STEPS - SAVED_AT)


def test_pasted_code_resumes(saved, tmp_path):
    """The text loads optimizer and scheduler from where they lie; lr is the control's / ratio."""
    path, momenta, control = saved
    report = liontool.convert_checkpoint(path, lr_ratio=RATIO)
    (text,) = report.script
    model = network(0)
    names = {"model": model, "scheduler": None}
    lines = text.splitlines()
    last = next(i for i, line in enumerate(lines) if line.startswith("scheduler."))
    exec("\n".join(lines[:last]), names)
    names["scheduler"] = schedule(names["optimizer"])
    exec("\n".join(lines[last:]), names)
    optimizer = names["optimizer"]
    assert isinstance(optimizer, Lion)
    loaded = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    assert same_bits(loaded, momenta)
    rates = train(model, optimizer, names["scheduler"], STEPS - SAVED_AT)
    assert rates == pytest.approx([rate / RATIO for rate in control], rel=1e-12)


def test_state_file_loads(saved, tmp_path):
    """The optimizer's state alone, by the text that is printed for it."""
    path, momenta, _ = saved
    output = tmp_path / "state.safetensors"
    (text,) = liontool.convert_checkpoint(path, output=output, lr_ratio=RATIO).script
    names = {"model": network(0)}
    exec(text, names)
    state = names["optimizer"].state
    model = dict(names["model"].named_parameters())
    assert same_bits({n: state[p]["exp_avg"] for n, p in model.items()}, momenta)

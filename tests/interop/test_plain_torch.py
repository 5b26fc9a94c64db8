"""A training loop's own checkpoint goes on under Lion, by the text that the command prints."""

from __future__ import annotations

import argparse

import pytest
import torch
from torch.distributed import checkpoint as sharding
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save
from torch.distributed.checkpoint.state_dict import get_state_dict

import liontool
from liontool.errors import LayoutError
from liontool.optim import Lion
from support.runs import same_bits

pytestmark = pytest.mark.interop

RATIO, STEPS, SAVED_AT = 5, 20, 8
SCHEDULERS = torch.optim.lr_scheduler
BEFORE = "...  # as before, on this optimizer, before its state is loaded"


def network(seed):
    torch.manual_seed(seed)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))


def cosine(optimizer):
    return SCHEDULERS.CosineAnnealingLR(optimizer, T_max=12, eta_min=1e-5)


def linear(optimizer):
    return SCHEDULERS.LinearLR(optimizer, 0.1, 1.0, total_iters=15)


def sequential(optimizer):
    return SCHEDULERS.SequentialLR(optimizer, [linear(optimizer), cosine(optimizer)], [12])


def one_cycle(optimizer):
    return SCHEDULERS.OneCycleLR(optimizer, max_lr=2e-3, total_steps=STEPS + 2)


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
    scheduler = cosine(optimizer)
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
    names = {"model": model, "make": cosine}
    exec(text.replace(BEFORE, "make(optimizer)"), names)
    optimizer = names["optimizer"]
    assert isinstance(optimizer, Lion)
    loaded = {n: optimizer.state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    assert same_bits(loaded, momenta)
    rates = train(model, optimizer, names["scheduler"], STEPS - SAVED_AT)
    assert rates == pytest.approx([rate / RATIO for rate in control], rel=1e-12)


@pytest.fixture(params=[linear, sequential, one_cycle], ids=lambda make: make.__name__)
def scheduled(request, tmp_path):
    """A script converted in the middle of a schedule, and the rates that were to come."""
    model = network(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.1)
    scheduler = request.param(optimizer)
    train(model, optimizer, scheduler, SAVED_AT)
    states = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(states, tmp_path / "adamw.pt")
    (text,) = liontool.convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO).script
    rates = train(model, optimizer, scheduler, STEPS - SAVED_AT)
    return text, request.param, [rate / RATIO for rate in rates]


def test_schedules_go_on(scheduled):
    """A scheduler made where the text says so sets what it would have set, by the ratio."""
    text, make, wanted = scheduled
    names = {"model": network(0), "make": make}
    exec(text.replace(BEFORE, "make(optimizer)"), names)
    rates = train(*(names[name] for name in ("model", "optimizer", "scheduler")), len(wanted))
    assert rates == pytest.approx(wanted, rel=1e-12)


def test_two_optimizers(tmp_path):
    """Each goes on with parameters and a schedule of its own."""
    nets, makes = [network(0), network(1)], [sequential, linear]
    tree, wanted = {}, []
    for index, (net, make) in enumerate(zip(nets, makes, strict=True)):
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3 * (index + 1))
        scheduler = make(optimizer)
        train(net, optimizer, scheduler, SAVED_AT)
        tree |= {f"o{index}": optimizer.state_dict(), f"s{index}": scheduler.state_dict()}
        torch.save(tree, tmp_path / "adamw.pt")
        wanted.append([r / RATIO for r in train(net, optimizer, scheduler, STEPS - SAVED_AT)])
    (text,) = liontool.convert_checkpoint(tmp_path / "adamw.pt", lr_ratio=RATIO).script
    code = text.replace(BEFORE, "sequential(optimizer)", 1).replace(BEFORE, "linear(optimizer_2)")
    names = {"sequential": sequential, "linear": linear}
    names |= {"params": nets[0].parameters(), "params_2": nets[1].parameters()}
    exec(code, names)
    for net, suffix, rates in zip(nets, ("", "_2"), wanted, strict=True):
        optimizer, scheduler = names[f"optimizer{suffix}"], names[f"scheduler{suffix}"]
        assert train(net, optimizer, scheduler, len(rates)) == pytest.approx(rates, rel=1e-12)


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


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_shards_made_one_file(tmp_path):
    """What the message about shards advises gives a file that converts."""
    model = network(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    scheduler = cosine(optimizer)
    train(model, optimizer, scheduler, SAVED_AT)
    tree = dict(zip(("model", "optimizer"), get_state_dict(model, optimizer), strict=True))
    tree["scheduler"] = scheduler.state_dict()
    sharding.save(tree, checkpoint_id=tmp_path / "shards", no_dist=True)
    with pytest.raises(LayoutError, match=r"format_utils dcp_to_torch \S*shards FILE\.pt$"):
        liontool.convert_checkpoint(tmp_path / "shards", lr_ratio=RATIO)
    dcp_to_torch_save(tmp_path / "shards", tmp_path / "one.pt")
    report = liontool.convert_checkpoint(tmp_path / "one.pt", lr_ratio=RATIO)
    lion = torch.load(report.output, weights_only=True)["optimizer"]
    moments = {n: optimizer.state[p]["exp_avg"] for n, p in model.named_parameters()}
    assert same_bits({n: state["exp_avg"] for n, state in lion["state"].items()}, moments)

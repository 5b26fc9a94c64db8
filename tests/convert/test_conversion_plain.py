"""Checkpoints of plain training loops, every form of AdamW in them: converted, then trained on."""

from __future__ import annotations

import argparse
import collections
import json
import zipfile

import lion_pytorch
import pytest
import torch
from torch import nn

from liontool import convert_checkpoint, read_checkpoint
from liontool.optim import Lion
from support.plain_runs import (
    LR,
    RATIO,
    SCHEDULERS,
    adamw,
    bits,
    load,
    network,
    resume,
    save,
    train,
)
from support.torch_files import assert_same

ADAM_KEYS = (
    *("eps", "amsgrad", "maximize", "foreach", "capturable", "differentiable", "fused"),
    "decoupled_weight_decay",
)


def expected(state, *, horizon=10.000000000000002):
    """What becomes of an optimizer's state dict by the rule, in place."""
    for entry in state["state"].values():
        for name in set(entry) - {"exp_avg"}:
            del entry[name]
    for group in state["param_groups"]:
        for name in ("lr", "initial_lr"):
            if name in group:
                group[name] = group[name] / RATIO
        group["weight_decay"] = group["weight_decay"] * RATIO
        group["betas"] = (0.9, 0.99)
        for name in ADAM_KEYS:
            if name != "maximize" or not group.get(name):
                group.pop(name, None)
        group["horizon"] = horizon
    return state


def checkpoint(model, optimizer, **more):
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict(), **more}


def converted(value, path, **options):
    """The report, and what the converted file holds."""
    save(value, path)
    before = path.read_bytes(), path.stat().st_mtime_ns
    report = convert_checkpoint(path, **{"lr_ratio": RATIO, **options})
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    assert json.dumps(report.to_dict(), allow_nan=False)
    with zipfile.ZipFile(report.output) as file:
        assert file.testzip() is None
    return report, load(report.output)


FORMS = {
    "default": {},
    "amsgrad": {"amsgrad": True},
    "fused": {"fused": True},
    "foreach": {"foreach": True},
    "maximize": {"maximize": True},
    "tensor lr": {"lr": torch.tensor(LR)},
    "bfloat16": {"dtype": torch.bfloat16},
    "no decay": {"weight_decay": 0.0},
}


@pytest.mark.parametrize("form", FORMS)
def test_forms(tmp_path, form):
    """Momentum and weights are the same bits, numbers are Lion's, all else is as it was."""
    model, optimizer = adamw(**FORMS[form])
    value = checkpoint(model, optimizer, epoch=3, args={"lr": 0.01})
    _, found = converted(value, tmp_path / "adamw.pt")
    source = load(tmp_path / "adamw.pt")
    for key, entry in source["optimizer"]["state"].items():
        assert bits(found["optimizer"]["state"][key]["exp_avg"]) == bits(entry["exp_avg"])
    expected(source["optimizer"])
    assert_same(found, source)


@pytest.mark.parametrize("lion", [Lion, lion_pytorch.Lion], ids=["liontool", "lion-pytorch"])
@pytest.mark.parametrize("form", FORMS)
def test_trained_on(tmp_path, form, lion):
    """Our Lion and lion-pytorch's take the state without a warning, and a step from it."""
    model, optimizer = adamw(**FORMS[form])
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    weights = [param.detach().clone() for param in model.parameters()]
    resumed = resume(found["optimizer"], model.parameters(), lion)
    assert resumed.param_groups[0]["lr"] == pytest.approx(LR / RATIO)
    assert all(
        not torch.equal(old, new) for old, new in zip(weights, model.parameters(), strict=True)
    )


def test_capturable(tmp_path):
    """A group from a CUDA graph, where steps are tensors of the device, is like any other."""
    model, optimizer = adamw()
    state = optimizer.state_dict()
    state["param_groups"][0].update(capturable=True, foreach=True, differentiable=True)
    _, found = converted({"optimizer": state}, tmp_path / "adamw.pt")
    assert_same(found["optimizer"], expected(load(tmp_path / "adamw.pt")["optimizer"]))
    resume(found["optimizer"], model.parameters())


def test_first_step_uses_the_momentum(tmp_path):
    """Lion's first step is the sign of its mix of AdamW's first moment and the gradient."""
    model, optimizer = adamw(weight_decay=0.0)
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    param = next(model.parameters())
    mix = 0.9 * optimizer.state[param]["exp_avg"] + (1 - 0.9) * torch.ones_like(param)
    wanted = param.detach() - LR / RATIO * mix.sign()
    resume(found["optimizer"], model.parameters())
    assert torch.allclose(param, wanted, atol=1e-7)


@pytest.mark.parametrize("option", ["maximize", "decoupled_weight_decay"])
def test_absent_means_as_constructed(tmp_path, option):
    """An option that the file does not name stays what the constructor was told."""
    model, optimizer = adamw()
    assert optimizer.state_dict()["param_groups"][0]["decoupled_weight_decay"] is True
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    assert "decoupled_weight_decay" not in found["optimizer"]["param_groups"][0]
    for value in (True, False):
        resumed = resume(found["optimizer"], model.parameters(), **{option: value})
        assert resumed.param_groups[0][option] is value


def test_groups_keep_their_own(tmp_path):
    """Groups have their own rates, decay, betas and the user's keys; empty ones stay."""
    params = list(network().parameters())
    groups = [
        {
            "params": params[:2],
            "lr": 0.1,
            "betas": (0.8, 0.95),
            "name": "a",
            "extra": [1, {"b": 2}],
        },
        {"params": params[2:], "weight_decay": 0.0, "lr_scale": 0.5},
        {"params": []},
    ]
    optimizer = torch.optim.AdamW(groups, lr=LR)
    for _ in range(30):
        for param in params:
            param.grad = torch.ones_like(param)
        optimizer.step()
    _, found = converted({"optimizer": optimizer.state_dict()}, tmp_path / "adamw.pt")
    source = expected(load(tmp_path / "adamw.pt")["optimizer"])
    assert_same(found["optimizer"], source)
    assert [group["lr"] for group in source["param_groups"]] == [0.025, LR / RATIO, LR / RATIO]
    resumed = resume(
        found["optimizer"], [{"params": params[:2]}, {"params": params[2:]}, {"params": []}]
    )
    assert resumed.param_groups[0]["name"] == "a"
    assert resumed.param_groups[1]["lr_scale"] == 0.5


def test_step_as_an_integer(tmp_path):
    """Old files have numbers for step counts."""
    _model, optimizer = adamw(steps=4)
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry["step"] = 4
    report, found = converted({"optimizer": state}, tmp_path / "adamw.pt")
    assert [notice.id for notice in report.notices] == ["few-steps"]
    assert "only 4 steps" in report.notices[0].text
    assert found["optimizer"]["param_groups"][0]["horizon"] == pytest.approx(10)
    assert report.step == 4


def test_horizon_of_a_small_lion_beta(tmp_path):
    """The horizon tells how many gradients AdamW's average holds at its step."""
    model, optimizer = adamw(steps=5)
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt", betas=(0.5, 0.9))
    group = found["optimizer"]["param_groups"][0]
    assert group["betas"] == (0.5, 0.9)
    assert group["horizon"] == pytest.approx((1 - 0.9**5) / 0.1)


def test_named_parameters(tmp_path):
    """`param_names` stay, and messages use them."""
    model = network()
    for param in model[1].parameters():
        param.requires_grad_(False)
    optimizer = torch.optim.AdamW(model.named_parameters(), lr=LR, weight_decay=0.1)
    train(model, optimizer, 30)
    report, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    names = found["optimizer"]["param_groups"][0]["param_names"]
    assert names == [name for name, _ in model.named_parameters()]
    assert [(n.id, n.text.partition(":")[2].split(";")[0]) for n in report.notices] == [
        ("missing-state", " 1.weight, 1.bias")
    ]
    resume(found["optimizer"], model.named_parameters())


def test_frozen_and_left_out(tmp_path):
    """A frozen parameter may be in a group or in none; one in a group has no state."""
    model = network()
    model[1].requires_grad_(False)
    optimizer = torch.optim.AdamW([*model[0].parameters(), model[1].weight], lr=LR)
    train(model, optimizer, 30)
    report, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    assert list(found["optimizer"]["state"]) == [0, 1]
    assert [notice.id for notice in report.notices] == ["missing-state"]
    resume(found["optimizer"], [*model[0].parameters(), model[1].weight])


def test_step_zero(tmp_path):
    """An optimizer without any state converts; Lion then starts from a zero momentum."""
    model, optimizer = adamw(steps=0)
    report, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    assert found["optimizer"]["state"] == {}
    assert [notice.id for notice in report.notices] == ["no-state"]
    resume(found["optimizer"], model.parameters())


def test_late_group(tmp_path):
    """Groups that joined at different times have horizons of their own."""
    model = network()
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=LR)
    train(model, optimizer, 18)
    optimizer.add_param_group({"params": list(model[2].parameters())})
    train(model, optimizer, 12)
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt", betas=(0.5, 0.9))
    horizons = [group["horizon"] for group in found["optimizer"]["param_groups"]]
    assert horizons == [pytest.approx((1 - 0.9**n) / 0.1) for n in (30, 12)]


def test_tied_weights(tmp_path):
    """Two names of one storage still share it."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    train(model, optimizer, 30)
    _, found = converted(checkpoint(model, optimizer), tmp_path / "adamw.pt")
    first, second = found["model"]["0.weight"], found["model"]["1.weight"]
    assert first.data_ptr() == second.data_ptr()
    assert torch.equal(first, model[0].weight)


def test_bare_optimizer(tmp_path):
    """A file can be the state dict itself."""
    _model, optimizer = adamw()
    _, found = converted(optimizer.state_dict(), tmp_path / "adamw.pt")
    assert_same(found, expected(load(tmp_path / "adamw.pt")))


def test_legacy_file(tmp_path):
    """A file that is no zip stays none; torch cannot map it, only load it."""
    model, optimizer = adamw()
    path = save(
        checkpoint(model, optimizer),
        tmp_path / "adamw.pth",
        _use_new_zipfile_serialization=False,
    )
    report = convert_checkpoint(path, lr_ratio=RATIO)
    assert report.container == "torch legacy"
    found, source = (torch.load(p, weights_only=True) for p in (report.output, path))
    expected(source["optimizer"])
    assert_same(found, source)
    assert read_checkpoint(report.output).optimizers[0].groups[0].fields["lr"] == LR / RATIO


def test_big_endian_file(tmp_path):
    """What a machine with the other byte order wrote keeps its order, and has the same numbers."""
    model, optimizer = adamw(lr=torch.tensor(LR))
    save(checkpoint(model, optimizer), tmp_path / "little.pt")
    path = tmp_path / "big.pt"
    with zipfile.ZipFile(tmp_path / "little.pt") as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if "/data/" in name:  # float32 all
                data = b"".join(data[i : i + 4][::-1] for i in range(0, len(data), 4))
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    report = convert_checkpoint(path, lr_ratio=RATIO)
    with zipfile.ZipFile(report.output) as file:
        assert file.testzip() is None
    found = torch.load(report.output, weights_only=True)
    source = load(tmp_path / "little.pt")
    expected(source["optimizer"])
    assert_same(found, source)


@pytest.mark.parametrize("momentum", ["copy", "scaled", "zeros"])
def test_several_anywhere(tmp_path, momentum):
    """Optimizers are found in lists and mappings of any kind, and all are converted."""
    first, second = adamw(steps=30), adamw(steps=60, lr=2 * LR)
    value = collections.OrderedDict(
        weights=first[0].state_dict(),
        optimizers=[
            first[1].state_dict(),
            {"deep": (collections.OrderedDict(second[1].state_dict()),)},
        ],
    )
    report, found = converted(value, tmp_path / "adamw.pt", momentum=momentum)
    assert [item.label for item in report.optimizers] == ["optimizers.0", "optimizers.1.deep.0"]
    states = found["optimizers"][0], found["optimizers"][1]["deep"][0]
    for state, (model, adam) in zip(states, (first, second), strict=True):
        assert state["param_groups"][0]["lr"] == adam.param_groups[0]["lr"] / RATIO
        key = next(iter(state["state"]))
        factor = {"copy": 1.0, "scaled": 0.30899}.get(momentum, 0.0)
        moment = adam.state[next(model.parameters())]["exp_avg"]
        factor /= 1 - 0.9**30 if momentum == "scaled" and adam is first[1] else 1
        assert torch.allclose(state["state"][key]["exp_avg"], moment * factor, rtol=1e-4)
        resume(state, model.parameters())


@pytest.mark.parametrize("momentum", ["copy", "scaled", "zeros"])
@pytest.mark.parametrize("alias", ["same object", "second state_dict()", "shallow copy"])
def test_one_optimizer_twice(tmp_path, alias, momentum):
    """An optimizer that stands in a file twice is converted in both places, and stays shared."""
    model, optimizer = adamw(lr=torch.tensor(LR))
    state = optimizer.state_dict()
    again = {
        "same object": state,
        "second state_dict()": optimizer.state_dict(),
        "shallow copy": dict(state),
    }[alias]
    _, found = converted({"now": state, "best": [again]}, tmp_path / "adamw.pt", momentum=momentum)
    now, best = found["now"], found["best"][0]
    assert (now is best) is (alias == "same object")
    assert now["state"][0] is best["state"][0]
    assert list(best["state"][0]) == ["exp_avg"]
    assert best["param_groups"][0]["lr"] == now["param_groups"][0]["lr"] == torch.tensor(LR / RATIO)
    resume(best, model.parameters())


def test_second_moment_used_elsewhere(tmp_path):
    """A tensor goes from the optimizer, not from where else the file has it."""
    _model, optimizer = adamw()
    state = optimizer.state_dict()
    value = {"optimizer": state, "kept": state["state"][0]["exp_avg_sq"]}
    _, found = converted(value, tmp_path / "adamw.pt")
    assert torch.equal(found["kept"], value["kept"])
    assert list(found["optimizer"]["state"][0]) == ["exp_avg"]


def test_inside_an_object(tmp_path):
    """A state dict that is an attribute of an object is converted where it is."""
    _model, optimizer = adamw()
    path = save({"run": argparse.Namespace(optimizer=optimizer.state_dict())}, tmp_path / "a.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO)
    found = torch.load(report.output, weights_only=False)["run"].optimizer
    assert_same(found, expected(torch.load(path, weights_only=False)["run"].optimizer))


def test_odd_keys_in_groups(tmp_path):
    """What no JSON can hold is carried along in the file and described in the records."""
    _model, optimizer = adamw()
    state = optimizer.state_dict()
    loop = [1]
    loop.append(loop)
    state["param_groups"][0].update(
        blob=b"\x00\xff", inf=float("inf"), nan=float("nan"), pairs={(1, 2): 3}, loop=loop,
        dtype=torch.float32, complex=1j, table=torch.ones(2, 3), text="\ud800",
    )  # fmt: skip
    path = save({"optimizer": state}, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO)
    found = torch.load(report.output, weights_only=False)["optimizer"]
    assert_same(found, expected(torch.load(path, weights_only=False)["optimizer"]))
    group = json.loads(json.dumps(report.to_dict(), allow_nan=False))["optimizers"][0]
    shown = group["groups_before"][0]
    assert (shown["inf"], shown["nan"], shown["table"]) == ("inf", "nan", "float32[2, 3]")
    with zipfile.ZipFile(report.output) as file:
        record = json.loads(file.read("adamw/liontool.json"))
    assert record["optimizers"][0]["groups"][0]["blob"] == "b'\\x00\\xff'"


@pytest.mark.parametrize("keys", ["names", "numbers"])
def test_keys_of_states(tmp_path, keys):
    """Keys of states may be names, as FSDP writes them."""
    model, optimizer = adamw()
    state = optimizer.state_dict()
    if keys == "names":
        names = [name for name, _ in model.named_parameters()]
        state["state"] = {names[key]: entry for key, entry in state["state"].items()}
        state["param_groups"][0]["params"] = names
    _, found = converted({"optimizer": state}, tmp_path / "adamw.pt")
    assert_same(found["optimizer"], expected(load(tmp_path / "adamw.pt")["optimizer"]))


def test_adam_with_l2_decay(tmp_path):
    """Adam converts with a warning where its decay is in its moments."""
    for decay, ids in ((0.1, ["l2-decay"]), (0.0, [])):
        model = network()
        optimizer = torch.optim.Adam(model.parameters(), lr=LR, weight_decay=decay)
        train(model, optimizer, 30)
        report, found = converted(checkpoint(model, optimizer), tmp_path / f"{decay}.pt")
        assert [notice.id for notice in report.notices] == ids
        assert report.optimizers[0].kind == "Adam"
        resume(found["optimizer"], model.parameters())


def test_before_torch_2_7(tmp_path):
    """Files without the mark of AdamW are taken for it, and the report says so."""
    _model, optimizer = adamw()
    state = optimizer.state_dict()
    del state["param_groups"][0]["decoupled_weight_decay"]
    report, _ = converted({"optimizer": state}, tmp_path / "adamw.pt")
    assert [notice.id for notice in report.notices] == ["assumed-adamw"]


def test_report(tmp_path):
    """Everything that was done is in the report."""
    model, optimizer = adamw()
    scheduler = SCHEDULERS.CosineAnnealingLR(optimizer, 100, eta_min=LR / 10)
    train(model, optimizer, 5, scheduler)
    path = tmp_path / "adamw.ckpt"
    report, found = converted(checkpoint(model, optimizer, scheduler=scheduler.state_dict()), path)
    assert report.source == str(path)
    assert report.output == str(tmp_path / "adamw.lion.ckpt")
    assert (report.framework, report.container, report.step) == ("plain", "torch zip", 35)
    assert report.bytes_before == path.stat().st_size
    assert report.bytes_after == (tmp_path / "adamw.lion.ckpt").stat().st_size
    numel = sum(param.numel() for param in model.parameters())
    assert report.state_bytes_before == 8 * numel + 4 * 6
    assert report.state_bytes_after == 4 * numel
    (only,) = report.optimizers
    assert only.dropped == ("step", "exp_avg_sq", *[k for k in ADAM_KEYS if k in only.dropped])
    assert set(only.dropped) == {"step", "exp_avg_sq", *ADAM_KEYS}
    assert only.groups_before[0]["elements"] == only.groups_after[0]["elements"] == numel
    assert only.groups_after[0]["lr"] == found["optimizer"]["param_groups"][0]["lr"]
    assert only.schedulers_before[0]["rates"]["eta_min"] == LR / 10
    assert only.schedulers_after[0]["rates"]["eta_min"] == LR / 10 / RATIO
    assert found["scheduler"]["eta_min"] == LR / 10 / RATIO
    assert "scheduler.load_state_dict(checkpoint['scheduler'])" in report.script[0]

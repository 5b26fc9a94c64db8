"""What the settings of a conversion do to real files: targets, decay, momentum, the ratio."""

from __future__ import annotations

import json
import warnings

import lion_pytorch
import pytest
import torch

from liontool import convert_checkpoint, load_optimizer
from liontool.errors import RefusedError
from liontool.measure.seed_scale import kappa
from liontool.optim import Lion, LionSF
from liontool.states import LIONS
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

SIZES = {"dense": (40, 50), "other": (60, 30), "rows": (200, 8)}
OURS = {"horizon", "reference_lr", "step", "decoupled_weight_decay", "agreement", "pow"}


@pytest.fixture
def run():
    """A model and its AdamW."""
    return adamw()


@pytest.fixture
def source(run, tmp_path):
    """A checkpoint of the run."""
    return save({"optimizer": run[1].state_dict()}, tmp_path / "adamw.pt")


@pytest.fixture
def noisy(tmp_path):
    """A checkpoint after some steps on noise with a mean: `noisy(120)`; weights are in it."""

    def make(steps, *, sparse=False):
        torch.manual_seed(0)
        model = torch.nn.ParameterDict(
            {
                "dense": torch.randn(40, 50),
                "other": torch.randn(60, 30),
                "rows": torch.randn(200, 8),
            }
        )
        params = list(model.values())
        groups = [{"params": params[:1]}, {"params": params[1:], "weight_decay": 0.0}]
        optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=0.1)
        for step in range(steps):
            for param in params:
                param.grad = 0.2 + torch.randn_like(param)
            if sparse:
                params[2].grad[step % 20 :: 20] = 0
                params[2].grad[100:] = 0 if step else 1
            optimizer.step()
        value = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        return save(value, tmp_path / "adamw.pt")

    return make


def group_of(report):
    return load(report.output)["optimizer"]["param_groups"][0]


# --- packages -----------------------------------------------------------------------------------


@pytest.mark.parametrize("package", [name for name in LIONS if name != "liontool"])
def test_for_other_packages(run, source, package):
    """No key of ours is written for another Lion, and the momentum is scaled."""
    report = convert_checkpoint(source, lr_ratio=RATIO, package=package)
    group = group_of(report)
    assert not OURS & group.keys()
    assert report.momentum == "scaled"
    found = load(report.output)["optimizer"]["state"][0]["exp_avg"]
    moment = run[1].state[next(run[0].parameters())]["exp_avg"]
    factor = kappa(0.9, 0.99) / (1 - 0.9**30)
    assert torch.allclose(found, moment * factor, rtol=1e-5)
    assert report.script[0].splitlines()[1].startswith(LIONS[package].imports["lion"])


def test_lion_pytorch_takes_a_step(run, source):
    """The Lion that it was made for goes on from it."""
    report = convert_checkpoint(source, lr_ratio=RATIO, package="lion-pytorch")
    live = resume(load(report.output)["optimizer"], run[0].parameters(), lion_pytorch.Lion)
    assert live.param_groups[0]["lr"] == LR / RATIO


# --- momentum -----------------------------------------------------------------------------------


def test_momentum_zeros(run, source):
    """Zeros of the same shapes; then there is nothing for a horizon to tell."""
    report = convert_checkpoint(source, lr_ratio=RATIO, momentum="zeros")
    state = load(report.output)["optimizer"]
    assert not any(entry["exp_avg"].any() for entry in state["state"].values())
    assert "horizon" not in state["param_groups"][0]
    live = resume(state, run[0].parameters())
    assert live.param_groups[0]["horizon"] is None


def test_zero_stale(noisy):
    """Elements that AdamW had stopped moving become zeros, all others keep their bits."""
    path = noisy(150, sparse=True)
    report = convert_checkpoint(path, lr_ratio=RATIO, zero_stale=True)
    before, after = (load(p)["optimizer"]["state"] for p in (path, report.output))
    for key, entry in before.items():
        moment, root = entry["exp_avg"], (entry["exp_avg_sq"] / (1 - 0.999**150)).sqrt()
        moves = moment.abs() / (1 - 0.9**150) >= 1e-4 * (root + 1e-8)
        assert torch.equal(after[key]["exp_avg"], torch.where(moves, moment, 0))
        assert (~moves).sum() < 5 or (key == 2 and (~moves).sum() >= 800)


# --- decay --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("decay", "expected"), [("scaled", 0.1 * RATIO), ("kept", 0.1)])
def test_decay(source, decay, expected):
    """Decay that contains lr is multiplied by the ratio, unless it is to be kept."""
    group = group_of(convert_checkpoint(source, lr_ratio=RATIO, decay=decay))
    assert group["weight_decay"] == pytest.approx(expected)
    assert "decoupled_weight_decay" not in group


def test_decoupled_decay(tmp_path):
    """The option of ours is written with the rate it is relative to, and decays as AdamW did."""
    model, optimizer = adamw(steps=0)
    scheduler = SCHEDULERS.LinearLR(optimizer, 1.0, 0.1, total_iters=60)
    train(model, optimizer, 30, scheduler)
    value = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    path = save(value, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO, decay="decoupled")
    group = group_of(report)
    assert group["decoupled_weight_decay"] is True
    assert group["reference_lr"] == pytest.approx(LR / RATIO)
    assert group["weight_decay"] == pytest.approx(LR * 0.1)
    live = Lion(model.parameters(), lr=1.0)
    live.load_state_dict(load(report.output)["optimizer"])
    now = optimizer.param_groups[0]["lr"]
    loaded = live.param_groups[0]
    shrink = loaded["lr"] / loaded["reference_lr"] * loaded["weight_decay"]
    assert shrink == pytest.approx(now * 0.1)
    assert [notice.id for notice in report.notices] == ["decoupled-decay"]


def test_decoupled_decay_of_lion_pytorch(source):
    """Where only the constructor can decouple, the report says how."""
    options = {"package": "lion-pytorch", "decay": "decoupled"}
    report = convert_checkpoint(source, lr_ratio=RATIO, **options)
    assert not OURS & group_of(report).keys()
    assert "decoupled_weight_decay=True" in report.notices[0].text


# --- LionSF -------------------------------------------------------------------------------------

SCHEDULES = {
    "cosine": lambda o: SCHEDULERS.CosineAnnealingLR(o, 40, eta_min=1e-4),
    "one cycle": lambda o: SCHEDULERS.OneCycleLR(o, LR, total_steps=200, cycle_momentum=False),
    "sequence": lambda o: SCHEDULERS.SequentialLR(
        o, [SCHEDULERS.LinearLR(o, 0.1, total_iters=10), SCHEDULERS.ExponentialLR(o, 0.9)], [10]
    ),
    "plateau": lambda o: SCHEDULERS.ReduceLROnPlateau(o, patience=2),
}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_lion_sf_holds_its_rate(tmp_path, schedule):
    """The scheduler's entry stays, and its class then gives one rate for ever."""
    model, optimizer = adamw(steps=0)
    scheduler = SCHEDULES[schedule](optimizer)
    arguments = (1.0,) if schedule == "plateau" else ()
    for _ in range(30):
        train(model, optimizer, 1)
        scheduler.step(*arguments)
    value = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    path = save(value, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO, to="lion-sf")
    found = load(report.output)
    assert found["scheduler"].keys() == value["scheduler"].keys()
    live = LionSF(model.parameters(), lr=123.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the scheduler's first step comes before the optimizer's
        resumed = SCHEDULES[schedule](live)
        live.load_state_dict(found["optimizer"])
        resumed.load_state_dict(found["scheduler"])
    now = optimizer.param_groups[0]["lr"] / RATIO
    rates = []
    for _ in range(60):
        train(model, live, 1)
        resumed.step(*arguments)
        rates.append(live.param_groups[0]["lr"])
    assert rates == pytest.approx([now] * 60, rel=1e-12)
    assert "constant learning rate" in report.script[0].splitlines()[-1]


def test_cycling_momentum(tmp_path):
    """Where a scheduler cycles beta1, its fields stay, and the report says between which values."""
    model, optimizer = adamw(steps=0)
    scheduler = SCHEDULERS.OneCycleLR(optimizer, LR, total_steps=100)
    train(model, optimizer, 30, scheduler)
    path = save({"optimizer": optimizer.state_dict()}, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio=RATIO)
    group, before = group_of(report), optimizer.param_groups[0]
    for name in ("lr", "initial_lr", "max_lr", "min_lr"):
        assert group[name] == pytest.approx(before[name] / RATIO, rel=1e-12)
    assert (group["max_momentum"], group["base_momentum"]) == (0.95, 0.85)
    assert group["betas"] == (0.9, 0.99)
    save({"optimizer": optimizer.state_dict(), "s": scheduler.state_dict()}, path)
    report = convert_checkpoint(path, lr_ratio=RATIO, force=True)
    (notice,) = report.notices
    assert notice.id == "cycled-beta1"
    assert notice.text.startswith("group 0: beta1 goes on cycling between 0.85 and 0.95: the sched")
    report = convert_checkpoint(path, lr_ratio=RATIO, force=True, to="lion-sf")
    (notice,) = report.notices
    assert "beta1 stays at 0.9 without the scheduler; a scheduler that is kept goes" in notice.text


def test_cycling_momentum_that_cannot_go_on(tmp_path):
    """A Lion without `betas` is refused by a scheduler that cycles them, and the way out works."""
    optimi = pytest.importorskip("optimi")
    model, optimizer = adamw(steps=0)
    scheduler = SCHEDULERS.OneCycleLR(optimizer, LR, total_steps=100)
    train(model, optimizer, 30, scheduler)
    value = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    report = convert_checkpoint(
        save(value, tmp_path / "adamw.pt"), lr_ratio=RATIO, package="optimi", betas=(0.95, 0.98)
    )
    (notice,) = report.notices
    assert notice.id == "cycled-beta1"
    assert "stays at 0.95" in notice.text
    assert "construct the scheduler with cycle_momentum=False" in notice.text
    found, live = load(report.output), optimi.Lion(model.parameters(), lr=1.0)
    with pytest.raises(ValueError, match="cycle_momentum"):
        SCHEDULERS.OneCycleLR(live, LR, total_steps=100)
    resumed = SCHEDULERS.OneCycleLR(live, LR, total_steps=100, cycle_momentum=False)
    live.load_state_dict(found["optimizer"])
    resumed.load_state_dict(found["scheduler"])
    for _ in range(60):
        train(model, optimizer, 1, scheduler)
        train(model, live, 1, resumed)
        (group,) = live.param_groups
        assert group["lr"] == pytest.approx(optimizer.param_groups[0]["lr"] / RATIO)
        assert (group["beta1"], group["beta2"]) == (0.95, 0.98)


# --- the ratio ----------------------------------------------------------------------------------


def test_auto_ratio(noisy):
    """The estimate is used, is in the report with its evidence, and can be given by hand."""
    path = noisy(120)
    report = convert_checkpoint(path, lr_ratio="auto", dry_run=True)
    (only,) = report.optimizers
    found = only.estimate
    assert only.ratio == found["ratio"]
    assert found["low"] < found["ratio"] < found["high"]
    assert 0.6 * found["noise_ratio"] <= found["ratio"] <= found["noise_ratio"] + 0.005
    assert only.groups_after[0]["lr"] == LR / found["ratio"]
    assert [group["index"] for group in found["groups"]] == [0, 1]
    assert found["groups"][0]["elements"] == 2000
    assert found["groups"][0]["settling_steps"] == pytest.approx(1 / (2 * LR * 0.1))
    assert found["groups"][0]["outside_box"] is not None
    assert found["groups"][1]["outside_box"] is None
    assert report.provenance["optimizers"][0]["ratio"] == found["ratio"]
    assert json.dumps(report.to_dict(), allow_nan=False)
    same = convert_checkpoint(path, lr_ratio=found["ratio"])
    assert same.optimizers[0].groups_after == only.groups_after


def test_auto_ratio_with_kept_decay(noisy):
    """The estimate foretells the decay that is written."""
    report = convert_checkpoint(noisy(120), lr_ratio="auto", decay="kept")
    (only,) = report.optimizers
    steps = 1 / (2 * only.groups_after[0]["lr"] * only.groups_after[0]["weight_decay"])
    assert only.estimate["groups"][0]["settling_steps"] == pytest.approx(steps)


def test_auto_ratio_leaves_sparse_tensors_out(noisy):
    """A tensor with still rows does not count, and is flagged by name."""
    report = convert_checkpoint(noisy(120, sparse=True), lr_ratio="auto")
    (only,) = report.optimizers
    assert [item["label"] for item in only.estimate["sparse"]] == ["2"]
    assert "sparse" in [notice.id for notice in report.notices]


def test_auto_ratio_progress(noisy):
    """Reading the moments counts up to their size, then writing to that of the output."""
    seen = []
    path = noisy(120)
    report = convert_checkpoint(path, lr_ratio="auto", progress=lambda *now: seen.append(now))
    moments = 4 * 2 * (40 * 50 + 60 * 30 + 200 * 8)
    ends = [done for done, total in seen if done == total]
    assert ends[-1] == report.bytes_after
    assert moments in [done for done, _ in seen]


def test_auto_ratio_too_early(noisy, tmp_path):
    """Before step 100 the moments say too little; the value for noise is offered."""
    path = noisy(99)
    with pytest.raises(RefusedError, match=r"needs 100 steps.*has 99: --lr-ratio \d.*pure noise"):
        convert_checkpoint(path, lr_ratio="auto")
    assert [path.name for path in tmp_path.iterdir()] == ["adamw.pt"]


def test_auto_ratio_refused_for_one_of_several(tmp_path):
    """The message names the optimizer."""
    path = save({"a": adamw()[1].state_dict()}, tmp_path / "one.pt")
    with pytest.raises(RefusedError, match=r"^--lr-ratio auto needs"):
        convert_checkpoint(path, lr_ratio="auto")
    save({"a": adamw()[1].state_dict(), "b": adamw()[1].state_dict()}, path)
    with pytest.raises(RefusedError, match=r"^a: --lr-ratio auto needs"):
        convert_checkpoint(path, lr_ratio="auto")


def test_auto_ratio_beside_strange_files(noisy, tmp_path):
    """Files in a folder that only look like weights do not stop the estimate."""
    folder = tmp_path / "checkpoint-120"
    folder.mkdir()
    save(load(noisy(120))["optimizer"], folder / "optimizer.pt")
    scheduler = SCHEDULERS.LambdaLR(adamw(steps=0)[1], lambda step: 1.0)
    save(
        {**scheduler.state_dict(), "base_lrs": [LR, LR], "_last_lr": [LR, LR]},
        folder / "scheduler.pt",
    )
    (folder / "trainer_state.json").write_text('{"global_step": 120}')
    (folder / "notes.bin").write_bytes(b"not a torch file")
    report = convert_checkpoint(folder, lr_ratio="auto")
    assert report.framework == "hf-trainer"
    assert json.loads((tmp_path / report.output / "liontool.json").read_text())["step"] == 120
    assert (tmp_path / report.output / "notes.bin").read_bytes() == b"not a torch file"


def test_notices_of_several(tmp_path):
    """Where there are several optimizers each notice names its own."""
    optimizers = {}
    for name, steps in (("early", 3), ("late", 30)):
        model, optimizer = adamw(steps=0)
        train(model, optimizer, steps)
        optimizers[name] = optimizer.state_dict()
    report = convert_checkpoint(save(optimizers, tmp_path / "two.pt"), lr_ratio=RATIO)
    (text,) = (notice.text for notice in report.notices if notice.id == "few-steps")
    assert text.startswith("early: only 3 steps")


def test_several_ratios(tmp_path):
    """Optimizers with estimates of their own have ratios of their own, schedulers included."""
    value = {}
    for name, mean in (("slow", 0.0), ("fast", 0.2)):
        torch.manual_seed(1)
        param = torch.nn.Parameter(torch.randn(60, 60))
        optimizer = torch.optim.AdamW([param], lr=LR if name == "slow" else 2 * LR)
        scheduler = SCHEDULERS.StepLR(optimizer, 1000)
        for _ in range(150):
            param.grad = torch.randn_like(param) + mean
            optimizer.step()
            scheduler.step()
        value[name] = optimizer.state_dict()
        value[f"{name} schedule"] = scheduler.state_dict()
    path = save(value, tmp_path / "adamw.pt")
    report = convert_checkpoint(path, lr_ratio="auto")
    slow, fast = (item.ratio for item in report.optimizers)
    assert slow > fast
    found = load(report.output)
    assert found["slow schedule"]["base_lrs"] == [LR / slow]
    assert found["fast schedule"]["base_lrs"] == [2 * LR / fast]
    # Two keys that are spelled alike are two optimizers all the same.
    save({1: value["slow"], "1": value["fast"]}, path)
    report = convert_checkpoint(path, lr_ratio="auto", force=True)
    assert [item.ratio for item in report.optimizers] == [slow, fast]


def test_loaded_with_load_optimizer(run, source):
    """`load_optimizer` reads the converted torch file too."""
    report = convert_checkpoint(source, lr_ratio=RATIO)
    live = Lion(network().parameters())
    load_optimizer(report.output, live)
    for param, old in zip(live.param_groups[0]["params"], run[0].parameters(), strict=True):
        assert bits(live.state[param]["exp_avg"]) == bits(run[1].state[old]["exp_avg"])

"""A run of lightning.Trainer, saved under AdamW, goes on under Lion by Lightning's own loader."""

from __future__ import annotations

import sys
import types

import pytest
import torch

import liontool
from liontool.optim import Lion, LionSF
from support import lightning_runs
from support.runs import all_finite, convert_by_command, once_each, same_bits, worst_ratio_error

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RATIO = 5
SAVED_AT, STEPS = lightning_runs.SAVED_AT, lightning_runs.STEPS


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """Runs by schedule: the checkpoint under AdamW, and the uninterrupted run as the control."""
    return once_each(tmp_path_factory, lightning_runs.train_adamw)


@pytest.fixture
def converted(adamw, tmp_path):
    """The checkpoint of a schedule, converted into the test's own folder."""

    def convert(schedule, **options):
        checkpoint, control = adamw(schedule)
        output = tmp_path / "adamw.lion.ckpt"
        liontool.convert_checkpoint(checkpoint, output=output, lr_ratio=RATIO, **options)
        return output, control

    return convert


@pytest.mark.parametrize("schedule", lightning_runs.SCHEDULES)
def test_resumed_under_lion(adamw, tmp_path, schedule):
    """Steps go on, lr is the control's / ratio, weights and momenta are the same bits."""
    checkpoint, control = adamw(schedule)
    output = convert_by_command(checkpoint, tmp_path / "adamw.lion.ckpt", RATIO)
    resumed = lightning_runs.resume(output, Lion, schedule)
    assert (resumed.first_step, resumed.last_step) == (SAVED_AT, STEPS)
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) < 1e-12
    assert same_bits(control.weights, resumed.weights)
    assert same_bits(control.momenta, resumed.momenta)
    assert len(resumed.losses) == STEPS - SAVED_AT
    assert all_finite(resumed.losses)


def test_one_cycle_goes_on_cycling_beta(converted):
    """OneCycleLR writes beta1 at every step, under Lion as under AdamW."""
    output, control = converted("one_cycle")
    resumed = lightning_runs.resume(output, Lion, "one_cycle")
    assert resumed.betas[1:] == pytest.approx(control.betas[SAVED_AT + 1 :], rel=1e-12)


def test_groups_after_the_resume(converted):
    """Weight decay is multiplied in the group that has any; betas are Lion's."""
    output, _ = converted("cosine")
    groups = lightning_runs.resume(output, Lion, "cosine").groups
    assert [group["weight_decay"] for group in groups] == [pytest.approx(0.5), 0.0]
    assert [tuple(group["betas"]) for group in groups] == [(0.9, 0.99)] * 2


@pytest.mark.parametrize("schedule", lightning_runs.SCHEDULES)
def test_unconverted_scheduler_would_be_caught(converted, adamw, schedule):
    """Negative control: with the old rates of one place left in, the curve is another one.

    OneCycleLR keeps its rates in the groups, the others in their own state.
    """
    output, control = converted(schedule)
    old = torch.load(adamw(schedule)[0], weights_only=True)
    new = torch.load(output, weights_only=True)
    if schedule == "one_cycle":
        for before, after in zip(
            old["optimizer_states"][0]["param_groups"],
            new["optimizer_states"][0]["param_groups"],
            strict=True,
        ):
            after |= {key: before[key] for key in ("initial_lr", "max_lr", "min_lr")}
    else:
        new["lr_schedulers"] = old["lr_schedulers"]
    torch.save(new, output)
    resumed = lightning_runs.resume(output, Lion, schedule)
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) > 1


def test_everything_else_is_the_same(converted, adamw):
    """Weights, loops and counters are what they were."""
    output, _ = converted("cosine")
    old = torch.load(adamw("cosine")[0], weights_only=True)
    new = torch.load(output, weights_only=True, mmap=True)
    assert list(old) == list(new)
    assert same_bits(old["state_dict"], new["state_dict"])
    for key in old.keys() - {"state_dict", "optimizer_states", "lr_schedulers"}:
        assert old[key] == new[key]


@pytest.mark.parametrize("schedule", [*lightning_runs.SCHEDULES, None])
def test_resumed_under_lion_sf(converted, schedule):
    """LionSF holds the rate of the moment of saving, with the old scheduler or without any."""
    output, control = converted(schedule or "cosine", to="lion-sf")
    resumed = lightning_runs.resume(output, LionSF, schedule)
    held = [control.rates[SAVED_AT]] * (STEPS - SAVED_AT)
    assert worst_ratio_error(held, resumed.rates, RATIO) < 1e-12
    assert same_bits(control.momenta, resumed.momenta)
    assert all_finite(resumed.losses)


def test_pasted_code_resumes(adamw, tmp_path):
    """The text that the command prints is right: optimizer, groups, and the call of fit."""
    checkpoint, control = adamw("cosine")
    output = tmp_path / "adamw.lion.ckpt"
    (text,) = liontool.convert_checkpoint(checkpoint, output=output, lr_ratio=RATIO).script
    net = lightning_runs.Net(None, lightning_runs.cosine, 1)
    code = text.replace("...  # return", "return make(self, optimizer)  # return")
    code = code.replace("(param_groups,", "(groups(self),")
    names = {"groups": lightning_runs.groups, "make": lightning_runs.with_schedule, "model": net}
    recorder, names["trainer"] = lightning_runs.trainer(tmp_path / "resumed")
    head, fit = code.split("trainer.fit(model, ")
    exec(head, names)
    net.configure_optimizers = names["configure_optimizers"].__get__(net)
    exec(f"trainer.fit(model, data, {fit}", names | {"data": lightning_runs.data()})
    error = worst_ratio_error(control.rates[SAVED_AT:], recorder.seen.rates, RATIO)
    assert error < 1e-12


@pytest.fixture
def config_class():
    """A class of a module that exists only while it is needed."""
    module = types.ModuleType("a_users_own_module")
    exec(
        "class Config:\n    def __init__(self, width):\n        self.width = width", module.__dict__
    )
    sys.modules[module.__name__] = module
    yield module.Config
    sys.modules.pop(module.__name__, None)


def test_custom_class_among_the_hyperparameters(config_class, tmp_path):
    """A class that cannot be imported is carried along, named, and loads where it can be."""
    hyper = {"config": config_class(8), "lr": 1e-3}
    checkpoint, control = lightning_runs.train_adamw(tmp_path, "cosine", hyper)
    module = sys.modules.pop("a_users_own_module")
    report = liontool.convert_checkpoint(checkpoint, lr_ratio=RATIO)
    assert "a_users_own_module" not in sys.modules
    assert any("a_users_own_module.Config" in text for text in report.script)

    sys.modules["a_users_own_module"] = module
    output = checkpoint.with_name(f"step={SAVED_AT}.lion.ckpt")
    resumed = lightning_runs.resume(output, Lion, "cosine", hyper, weights_only=False)
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) < 1e-12
    loaded = torch.load(output, weights_only=False)["hyper_parameters"]
    assert (loaded["config"].width, loaded["lr"]) == (8, 1e-3)


def test_class_needs_weights_only_false(config_class, tmp_path):
    """What the printed text says about weights_only is true of Lightning."""
    hyper = {"config": config_class(8)}
    checkpoint, _ = lightning_runs.train_adamw(tmp_path, "cosine", hyper)
    liontool.convert_checkpoint(checkpoint, output=tmp_path / "x.ckpt", lr_ratio=RATIO)
    with pytest.raises(Exception, match="weights_only"):
        lightning_runs.resume(tmp_path / "x.ckpt", Lion, "cosine", hyper)


def test_two_optimizers(tmp_path):
    """Each optimizer goes on with its own schedule. Lightning counts the steps of both."""
    control = lightning_runs.TwoNets(torch.optim.AdamW)
    lightning_runs.trainer(tmp_path)[1].fit(control, lightning_runs.data())
    checkpoint = next(tmp_path.glob("*.ckpt"))
    report = liontool.convert_checkpoint(checkpoint, output=tmp_path / "lion.ckpt", lr_ratio=RATIO)
    assert [len(one.schedulers_after) for one in report.optimizers] == [1, 1]
    resumed = lightning_runs.TwoNets(Lion)
    code = report.script[0].partition("\ntrainer.fit")[0].replace("(params,", "(FIRST,")
    code = code.replace("(params_2,", "(SECOND,").replace(
        "...  # return", "return RETURN  # return"
    )
    code = code.replace("FIRST", "self.first.parameters()")
    code = code.replace("SECOND", "self.second.parameters()")
    code = code.replace(
        "RETURN", "[optimizer, optimizer_2], [sequential(optimizer), cosine(optimizer_2)]"
    )
    names = dict(lightning_runs.SCHEDULES)
    exec(code, names)
    resumed.configure_optimizers = names["configure_optimizers"].__get__(resumed)
    lightning_runs.trainer(tmp_path / "resumed")[1].fit(
        resumed, lightning_runs.data(), ckpt_path=str(tmp_path / "lion.ckpt")
    )
    done = len(control.rates) - len(resumed.rates)
    assert (report.step, done) == (SAVED_AT, SAVED_AT // 2)
    assert worst_ratio_error(control.rates[done:], resumed.rates, RATIO) < 1e-12

"""A run of transformers.Trainer, saved under AdamW, goes on under Lion by Trainer's own loader."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import lion_pytorch
import pytest
import torch

import liontool
from liontool.errors import (
    AmbiguousError,
    SourceChangedError,
    UnfinishedError,
    UnsafePathError,
)
from liontool.optim import Lion, LionSF
from support import trainer_runs
from support.runs import all_finite, convert_by_command, once_each, same_bits, worst_ratio_error

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RATIO = 5
SAVED_AT, STEPS, LR = trainer_runs.SAVED_AT, trainer_runs.STEPS, trainer_runs.LR
SCHEDULES = trainer_runs.SCHEDULES


def train(folder, schedule):
    """An uninterrupted run; its checkpoint and what it showed."""
    return trainer_runs.train_adamw(folder, **SCHEDULES[schedule])


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """Runs by schedule: the checkpoint under AdamW, and the uninterrupted run as the control."""
    return once_each(tmp_path_factory, train)


@pytest.fixture
def converted(adamw, tmp_path):
    """The checkpoint of a schedule, converted into the test's own folder."""

    def convert(schedule, **options):
        checkpoint, control = adamw(schedule)
        output = tmp_path / "lion-checkpoint-6"
        liontool.convert_checkpoint(checkpoint, output=output, lr_ratio=RATIO, **options)
        return output, control

    return convert


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_resumed_under_lion(adamw, tmp_path, schedule):
    """Steps go on, lr is the control's / ratio, weights and momenta are the same bits."""
    checkpoint, control = adamw(schedule)
    output = convert_by_command(checkpoint, tmp_path / "lion-checkpoint-6", RATIO)
    resumed = trainer_runs.resume(output, Lion, **SCHEDULES[schedule])
    assert (resumed.first_step, resumed.last_step) == (SAVED_AT, STEPS)
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) < 1e-12
    assert same_bits(control.weights, resumed.weights)
    assert same_bits(control.momenta, resumed.momenta)
    assert len(resumed.losses) == STEPS - SAVED_AT
    assert all_finite(resumed.losses)


def test_groups_after_the_resume(converted):
    """Weight decay is multiplied where there is any; betas are Lion's; Adam's keys are gone."""
    output, _ = converted("linear")
    groups = trainer_runs.resume(output, Lion, **SCHEDULES["linear"]).groups
    assert [group["weight_decay"] for group in groups] == [pytest.approx(0.5), 0.0]
    assert [tuple(group["betas"]) for group in groups] == [(0.9, 0.99)] * 2
    assert not {"eps", "amsgrad"} & groups[0].keys()


def test_second_moments_are_gone(converted):
    """Nothing of Adam's second moment reaches the Lion."""
    output, _ = converted("linear")
    resumed = trainer_runs.resume(output, Lion, **SCHEDULES["linear"])
    assert "exp_avg_sq" not in resumed.keys


def test_other_files_are_the_same(converted, adamw):
    """Everything that is neither optimizer nor scheduler is byte-identical."""
    output, _ = converted("linear")
    checkpoint, _ = adamw("linear")
    changed = {"optimizer.pt", "scheduler.pt"}
    names = {path.name for path in checkpoint.iterdir()}
    assert names | {"liontool.json"} == {path.name for path in output.iterdir()}
    for name in names - changed:
        assert (checkpoint / name).read_bytes() == (output / name).read_bytes()


def test_files_load_with_weights_only(converted):
    """Trainer reads both files with weights_only=True."""
    output, _ = converted("linear")
    optimizer = torch.load(output / "optimizer.pt", weights_only=True, mmap=True)
    assert set(optimizer) == {"state", "param_groups"}
    assert "base_lrs" in torch.load(output / "scheduler.pt", weights_only=True)


def test_resumed_under_another_lion(converted):
    """lion-pytorch's Lion goes on too, from a scaled momentum."""
    output, control = converted("linear", package="lion-pytorch")
    resumed = trainer_runs.resume(output, lion_pytorch.Lion, **SCHEDULES["linear"])
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) < 1e-12
    assert resumed.momenta.keys() == control.momenta.keys()
    assert all_finite(resumed.losses)


def test_resumed_with_the_users_own_optimizer(converted):
    """`optimizers=(Lion(groups), None)` resumes as well, with Trainer's own two groups."""
    output, control = converted("cosine")
    model = trainer_runs.tiny_model(1)
    decay = set(trainer_runs.Trainer.get_decay_parameter_names(None, model))
    groups = [
        {"params": [p for n, p in model.named_parameters() if n in decay]},
        {"params": [p for n, p in model.named_parameters() if n not in decay]},
    ]
    recorder = trainer_runs.Recorder(SAVED_AT)
    trainer_runs.Trainer(
        model,
        trainer_runs.arguments(output.parent / "resumed", **SCHEDULES["cosine"]),
        train_dataset=trainer_runs.dataset(),
        callbacks=[recorder],
        optimizers=(Lion(groups, lr=LR), None),
    ).train(resume_from_checkpoint=str(output))
    error = worst_ratio_error(control.rates[SAVED_AT:], recorder.seen.rates, RATIO)
    assert error < 1e-12
    assert same_bits(control.momenta, recorder.seen.momenta)


def test_trainer_loads_neither_file_without_both(converted):
    """Why a folder without scheduler.pt is refused: its optimizer would be forgotten in silence."""
    output, _ = converted("linear")
    (output / "scheduler.pt").unlink()
    resumed = trainer_runs.resume(output, Lion, **SCHEDULES["linear"])
    assert resumed.first_step == SAVED_AT
    assert resumed.momenta == {}


def test_unconverted_scheduler_would_be_caught(converted, adamw):
    """Negative control: with the old scheduler.pt the curve is the ratio too high."""
    output, control = converted("linear")
    shutil.copy(adamw("linear")[0] / "scheduler.pt", output / "scheduler.pt")
    resumed = trainer_runs.resume(output, Lion, **SCHEDULES["linear"])
    error = worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO)
    assert error == pytest.approx(RATIO - 1)


def test_min_lr_and_lr_both_divided(converted):
    """cosine_with_min_lr: dividing both in the script is as right as leaving both."""
    output, control = converted("cosine_with_min_lr")
    options = SCHEDULES["cosine_with_min_lr"] | {"lr_scheduler_kwargs": {"min_lr": 1e-4 / RATIO}}
    resumed = trainer_runs.resume(
        output, Lion, **options, learning_rate=LR / RATIO, constructor_lr=LR / RATIO
    )
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) < 1e-12


def test_only_one_of_them_divided_is_wrong(converted):
    """Dividing one alone bends the curve: why the command says both or neither."""
    output, control = converted("cosine_with_min_lr")
    resumed = trainer_runs.resume(
        output, Lion, **SCHEDULES["cosine_with_min_lr"], constructor_lr=LR / RATIO
    )
    assert worst_ratio_error(control.rates[SAVED_AT:], resumed.rates, RATIO) > 0.1


def test_resumed_under_lion_sf(converted):
    """LionSF holds the rate of the moment of saving, under Trainer's constant schedule."""
    output, control = converted("linear", to="lion-sf")
    resumed = trainer_runs.resume(output, LionSF, lr_scheduler_type="constant")
    held = [control.rates[SAVED_AT]] * (STEPS - SAVED_AT)
    assert worst_ratio_error(held, resumed.rates, RATIO) < 1e-12
    assert same_bits(control.momenta, resumed.momenta)
    assert all_finite(resumed.losses)


def test_resumed_under_lion_sf_with_plateau(tmp_path):
    """A schedule that is no lambda stays as it is: the checkpoint makes it hold the rate."""
    schedule = {
        "lr_scheduler_type": "reduce_lr_on_plateau",
        "lr_scheduler_kwargs": {"patience": 0, "threshold": 10.0, "threshold_mode": "abs"},
        "eval_strategy": "steps",
        "eval_steps": 1,
    }
    checkpoint, _ = trainer_runs.train_adamw(tmp_path, **schedule)
    report = liontool.convert_checkpoint(checkpoint, lr_ratio=RATIO, to="lion-sf")
    assert "leave lr_scheduler_type as it is" in report.script[0].splitlines()[-1]
    resumed = trainer_runs.resume(Path(report.output), LionSF, **schedule)
    now = torch.load(checkpoint / "optimizer.pt")["param_groups"][0]["lr"] / RATIO
    assert len(resumed.rates) == STEPS - SAVED_AT
    assert all(rate == pytest.approx(now) for rates in resumed.rates for rate in rates)
    assert now < LR / RATIO


def test_pasted_code_resumes(adamw, tmp_path):
    """The text that the command prints runs as it is, once the dots are filled in."""
    checkpoint, control = adamw("cosine")
    output = tmp_path / "lion-checkpoint-6"
    report = liontool.convert_checkpoint(checkpoint, output=output, lr_ratio=RATIO)
    code = next(text for text in report.script if "resume_from_checkpoint" in text)
    recorder = trainer_runs.Recorder(SAVED_AT)
    names = {
        "Trainer": trainer_runs.Trainer,
        "model": trainer_runs.tiny_model(1),
        "args": trainer_runs.arguments(tmp_path / "resumed", **SCHEDULES["cosine"]),
        "data": trainer_runs.dataset(),
        "recorder": recorder,
    }
    exec(code.replace("...,", "train_dataset=data, callbacks=[recorder],"), names)
    error = worst_ratio_error(control.rates[SAVED_AT:], recorder.seen.rates, RATIO)
    assert error < 1e-12


def test_unfinished_checkpoint_is_refused(adamw, tmp_path):
    """A real folder without its last file is unfinished."""
    copy = tmp_path / "checkpoint-6"
    shutil.copytree(adamw("linear")[0], copy)
    (copy / "trainer_state.json").unlink()
    with pytest.raises(UnfinishedError, match="unfinished"):
        liontool.convert_checkpoint(copy, lr_ratio=RATIO)


def test_folder_of_the_run_is_ambiguous(adamw):
    """The run's own folder lists what it holds, newest first."""
    folder: Path = adamw("linear")[0].parent
    with pytest.raises(AmbiguousError, match=r"checkpoint-14, .*checkpoint-6"):
        liontool.convert_checkpoint(folder, lr_ratio=RATIO)


def test_links_inside_stay_links(adamw, tmp_path):
    """A file that is a link to another one of the folder is the same link in the copy."""
    copy = shutil.copytree(adamw("linear")[0], tmp_path / "checkpoint-6")
    (copy / "model.safetensors").rename(copy / "weights")
    (copy / "model.safetensors").symlink_to("weights")
    liontool.convert_checkpoint(copy, lr_ratio=RATIO)
    assert (tmp_path / "lion-checkpoint-6" / "model.safetensors").readlink() == Path("weights")


def test_link_out_of_the_folder_is_refused(adamw, tmp_path):
    """A link that climbs out is refused, and nothing is written."""
    copy = shutil.copytree(adamw("linear")[0], tmp_path / "checkpoint-6")
    (copy / "extra").symlink_to("../secret")
    with pytest.raises(UnsafePathError, match="leads out of the folder"):
        liontool.convert_checkpoint(copy, lr_ratio=RATIO)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]


def test_a_run_that_still_writes_is_refused(adamw, tmp_path):
    """A file that changes in the meantime stops the conversion, and nothing is written."""
    copy = shutil.copytree(adamw("linear")[0], tmp_path / "checkpoint-6")

    def write(done, total):
        os.utime(copy / "rng_state.pth", ns=(0, 0))

    with pytest.raises(SourceChangedError, match=r"rng_state\.pth: was changed"):
        liontool.convert_checkpoint(copy, lr_ratio=RATIO, progress=write)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-6"]

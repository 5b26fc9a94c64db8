"""Edited checkpoints of transformers.Trainer resume under AdamW by Trainer's own loader."""

from __future__ import annotations

import pytest
import torch

import liontool
from support import trainer_runs
from support.runs import all_finite, same_bits, worst_ratio_error

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SAVED_AT, STEPS, LR = trainer_runs.SAVED_AT, trainer_runs.STEPS, trainer_runs.LR
SCHEDULE = trainer_runs.SCHEDULES["cosine_with_min_lr"]


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """A checkpoint, and the uninterrupted run as the control."""
    return trainer_runs.train_adamw(tmp_path_factory.mktemp("run"), **SCHEDULE)


def resumed(adamw, tmp_path, *words):
    """The run that goes on after an edit, and the report of that."""
    output = tmp_path / "edited-checkpoint-6"
    report = liontool.edit_checkpoint(adamw[0], words, output=output)
    seen = trainer_runs.resume(output, torch.optim.AdamW, **SCHEDULE)
    assert (seen.first_step, seen.last_step) == (SAVED_AT, STEPS)
    assert all_finite(seen.losses)
    return seen, report


@pytest.mark.parametrize("word", ["lr=x0.5", f"lr={LR / 2}"])
def test_rates(adamw, tmp_path, word):
    """All rates are halves, the minimum's too; weights and moments are the same bits."""
    seen, report = resumed(adamw, tmp_path, word)
    control = adamw[1]
    assert worst_ratio_error(control.rates[SAVED_AT:], seen.rates, 2) < 1e-12
    assert same_bits(control.weights, seen.weights)
    assert same_bits(control.momenta, seen.momenta)
    texts = {notice.id: notice.text for notice in report.notices}
    assert "leave both as they are or change both" in texts["scheduler"]
    assert f"TrainingArguments said learning_rate={LR}" in texts["trainer-arguments"]


def test_state_and_groups(adamw, tmp_path):
    """Names, moments in half the bytes and hyperparameters arrive in the optimizer."""
    model = tmp_path / "model.pt"
    torch.save(trainer_runs.tiny_model(0).state_dict(), model)
    words = (f"names:{model}", "exp_avg:bf16", "weight_decay=x3", "betas=0.8,0.95")
    seen, report = resumed(adamw, tmp_path, *words)
    control = adamw[1]
    rounded = {name: moment.bfloat16().float() for name, moment in control.momenta.items()}
    assert same_bits(seen.momenta, rounded)
    decay, rest = seen.groups
    assert (decay["weight_decay"], rest["weight_decay"]) == (0.1 * 3, 0.0)
    assert decay["betas"] == (0.8, 0.95)
    named = dict(trainer_runs.tiny_model(0).named_parameters())
    weights = [name for name in named if name.endswith("weight") and ".ln_" not in name]
    assert decay["param_names"] == weights
    assert rest["param_names"] == [name for name in named if name not in weights]
    assert seen.rates == control.rates[SAVED_AT:]
    assert "named-by-order" in {notice.id for notice in report.notices}


def test_strip(adamw, tmp_path):
    """Without its state the run goes on at the same rates from the same weights."""
    seen, _ = resumed(adamw, tmp_path, "strip")
    assert seen.momenta == {}
    assert seen.rates == adamw[1].rates[SAVED_AT:]
    assert same_bits(adamw[1].weights, seen.weights)

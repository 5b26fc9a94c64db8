"""Edited checkpoints of lightning.Trainer resume under AdamW by Lightning's own loader."""

from __future__ import annotations

import pytest
import torch

import liontool
from support import lightning_runs
from support.runs import all_finite, once_each, same_bits, worst_ratio_error

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

SAVED_AT, STEPS, LR = lightning_runs.SAVED_AT, lightning_runs.STEPS, lightning_runs.LR


@pytest.fixture(scope="module")
def adamw(tmp_path_factory):
    """Runs by schedule: the checkpoint, and the uninterrupted run as the control."""
    return once_each(tmp_path_factory, lightning_runs.train_adamw)


def resumed(checkpoint, tmp_path, schedule, *words):
    """The run that goes on after an edit."""
    output = tmp_path / "run.edited.ckpt"
    liontool.edit_checkpoint(checkpoint, words, output=output)
    seen = lightning_runs.resume(output, torch.optim.AdamW, schedule)
    assert (seen.first_step, seen.last_step) == (SAVED_AT, STEPS)
    assert all_finite(seen.losses)
    return seen


@pytest.mark.parametrize("word", ["lr=x0.5", f"lr={LR / 2}"])
@pytest.mark.parametrize("schedule", lightning_runs.SCHEDULES)
def test_rates(adamw, tmp_path, schedule, word):
    """All rates to come are halves, of peaks, of minima and of schedules inside schedules."""
    checkpoint, control = adamw(schedule)
    seen = resumed(checkpoint, tmp_path, schedule, word)
    assert worst_ratio_error(control.rates[SAVED_AT:], seen.rates, 2) < 1e-12
    assert same_bits(control.weights, seen.weights)
    assert same_bits(control.momenta, seen.momenta)


def test_state_and_groups(adamw, tmp_path):
    """Names from the file itself, moments in half the bytes, and one group's decay."""
    checkpoint, control = adamw("cosine")
    words = (f"names:{checkpoint}", "exp_avg:bf16", "groups.1.weight_decay=0.3")
    seen = resumed(checkpoint, tmp_path, "cosine", *words)
    rounded = {name: moment.bfloat16().float() for name, moment in control.momenta.items()}
    assert same_bits(seen.momenta, rounded)
    assert [group["weight_decay"] for group in seen.groups] == [0.1, 0.3]
    assert seen.groups[1]["param_names"] == ["body.2.weight", "body.2.bias"]
    assert seen.rates == control.rates[SAVED_AT:]


def test_strip(adamw, tmp_path):
    """Without its state the run goes on at the same rates from the same weights."""
    checkpoint, control = adamw("sequential")
    seen = resumed(checkpoint, tmp_path, "sequential", "strip")
    assert seen.momenta == {}
    assert seen.rates == control.rates[SAVED_AT:]
    assert same_bits(control.weights, seen.weights)

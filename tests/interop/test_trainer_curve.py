"""The curve that TrainingArguments stand for, compared with what transformers makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.optimization import get_scheduler

from liontool.inspect.schedules.trainer import trainer_factor
from liontool.inspect.summary import summarise
from support import trainer_runs as trainer

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

STEPS = 40


@pytest.mark.parametrize("warm_up", [0, 7])
@pytest.mark.parametrize("kind", ["linear", "cosine", "constant", "constant_with_warmup"])
def test_factor(kind: str, warm_up: int) -> None:
    """At every step the factor is that of transformers."""
    facts = {"max_steps": STEPS, "lr_scheduler_type": kind, "warmup_steps": warm_up}
    found = trainer_factor(facts)
    assert found is not None
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    scheduler = get_scheduler(kind, optimizer, warm_up, STEPS)
    for step in range(STEPS):
        assert found[0](step) == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9, abs=1e-15)
        scheduler.step()
    assert found[1] == STEPS


def test_warm_up_as_a_share() -> None:
    """A number below 1 is a share of all steps."""
    facts = {"max_steps": 41, "lr_scheduler_type": "linear", "warmup_steps": 0.1}
    found = trainer_factor(facts)
    assert found is not None
    assert [found[0](step) for step in (4, 5)] == [0.8, 1.0]


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"max_steps": 0, "lr_scheduler_type": "linear"},
        {"max_steps": 9, "lr_scheduler_type": "polynomial"},
        {"max_steps": 9, "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 2}},
    ],
)
def test_what_is_not_known_is_not_guessed(facts: dict[str, object]) -> None:
    """Without a number of steps, or for another class, there is no factor."""
    assert trainer_factor(facts) is None


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_curve_of_a_run(kind: str, tmp_path: Path) -> None:
    """What is drawn from a checkpoint is what the run went on to use."""
    checkpoint, seen = trainer.train_adamw(tmp_path, **trainer.SCHEDULES[kind])
    (optimizer,) = summarise(checkpoint).optimizers
    curve = optimizer.schedulers[0].curve
    assert curve is not None
    assert curve.position == trainer.SAVED_AT
    for one in curve.curves:
        used = [seen.rates[trainer.SAVED_AT + step][one.groups[0]] for step in one.steps[:-1]]
        assert list(one.rates[:-1]) == pytest.approx(used, rel=1e-9)
    assert any("TrainingArguments'" in sentence for sentence in optimizer.resume)
    assert not any("is code" in finding.text for finding in summarise(checkpoint).findings)


def test_end_of_a_run(tmp_path: Path) -> None:
    """Where the run has come to its end that is a finding, and no curve is spoken of."""
    trainer.train_adamw(tmp_path, **trainer.SCHEDULES["linear"])
    summary = summarise(max(tmp_path.glob("checkpoint-*"), key=lambda p: int(p.name[11:])))
    assert "schedule-over" in {finding.id for finding in summary.findings}
    (optimizer,) = summary.optimizers
    assert any("is at its end: lr stays 0" in sentence for sentence in optimizer.resume)
    assert not any("curve" in sentence for sentence in optimizer.resume)

"""The schedules of Hugging Face's Trainer: scaled with its settings left or divided, and held."""

from __future__ import annotations

import pytest
import torch

from liontool.convert.adamw_to_lion import adamw_to_lion
from liontool.convert.adamw_to_lion_sf import adamw_to_lion_sf
from liontool.convert.settings import Settings
from liontool.optim import Lion
from support.torch_models import optimizer_of, optimizer_state, scheduler_state

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore")]

RATIO = 4.0
SAVED_AT, STEPS, WARMUP = 12, 40, 5
# Names of the Trainer's schedules with what each needs, absolute learning rates apart.
SCHEDULES = {
    "linear": ({}, {}),
    "cosine": ({}, {}),
    "cosine_with_restarts": ({"num_cycles": 3}, {}),
    "polynomial": ({"power": 2.0}, {"lr_end": 1e-5}),
    "constant": ({}, {}),
    "constant_with_warmup": ({}, {}),
    "inverse_sqrt": ({}, {}),
    "cosine_with_min_lr": ({}, {"min_lr": 1e-4}),
    "cosine_warmup_with_min_lr": ({}, {"min_lr": 1e-4}),
    "warmup_stable_decay": ({"num_decay_steps": 20, "min_lr_ratio": 0.1}, {}),
    "reduce_lr_on_plateau": ({"patience": 2, "factor": 0.5}, {"min_lr": 1e-4, "eps": 1e-6}),
    "greedy": ({"patience": 2, "factor": 0.8}, {"min_lr": 1e-4, "max_lr": 4e-3, "eps": 1e-6}),
}


def run(kind, name, divided_by=1.0):
    """Optimizer and scheduler as the Trainer makes them, with two groups."""
    from transformers import get_scheduler

    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [
        {"params": [param], "weight_decay": decay}
        for param, decay in zip(params, (0.1, 0), strict=True)
    ]
    optimizer = kind(groups, lr=2e-3 / divided_by)
    factors, rates = SCHEDULES[name]
    scheduler = get_scheduler(
        name,
        optimizer,
        num_warmup_steps=WARMUP,
        num_training_steps=STEPS,
        scheduler_specific_kwargs={
            **factors, **{key: rate / divided_by for key, rate in rates.items()},
        },
    )  # fmt: skip
    return optimizer, scheduler


def curve(name, optimizer, scheduler, first, last):
    """The learning rates of steps `first` to `last`, with a metric that stops improving."""
    rates = []
    for step in range(first, last):
        for group in optimizer.param_groups:
            group["params"][0].grad = torch.ones(2)
        optimizer.step()
        driven = name in ("reduce_lr_on_plateau", "greedy")
        scheduler.step(*((max(1 - 0.1 * step, 0.2),) if driven else ()))
        rates.append([group["lr"] for group in optimizer.param_groups])
    return torch.tensor(rates, dtype=torch.float64)


def saved(name):
    """An AdamW run of the Trainer, and its state in the middle."""
    optimizer, scheduler = run(torch.optim.AdamW, name)
    curve(name, optimizer, scheduler, 0, SAVED_AT)
    return optimizer, scheduler, optimizer_of(optimizer.state_dict(), scheduler.state_dict())


def resumed(after, name, divided_by=1.0):
    """A Lion run that loads the converted state as the Trainer does."""
    optimizer, scheduler = run(Lion, name, divided_by)
    optimizer.load_state_dict(optimizer_state(after))
    scheduler.load_state_dict(scheduler_state(after.schedulers[0]))
    return optimizer, scheduler


def test_every_schedule_is_covered():
    """No schedule of the installed Trainer is missing here."""
    from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION

    assert {kind.value for kind in TYPE_TO_SCHEDULER_FUNCTION} == set(SCHEDULES)


@pytest.mark.parametrize("divided_by", [1.0, RATIO], ids=["settings left", "settings divided"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_remaining_curve(name, divided_by):
    """The curve goes on divided by the ratio, whether the settings are left or all divided."""
    optimizer, scheduler, before = saved(name)
    after = adamw_to_lion(before, Settings(RATIO)).optimizer
    lion, schedule = resumed(after, name, divided_by)
    expected = curve(name, optimizer, scheduler, SAVED_AT, STEPS) / RATIO
    got = curve(name, lion, schedule, SAVED_AT, STEPS)
    torch.testing.assert_close(got, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", SCHEDULES)
def test_held(name):
    """With the constant schedule, or the same where no code is in it, LionSF's rate stays."""
    optimizer, _, before = saved(name)
    now = optimizer.param_groups[0]["lr"]
    change = adamw_to_lion_sf(before, Settings(RATIO))
    driven = name in ("reduce_lr_on_plateau", "greedy")
    assert [note.id for note in change.notes] == ([] if driven else ["code-schedule"])
    settings = name if driven else "constant"
    lion, schedule = resumed(change.optimizer, settings)
    got = curve(settings, lion, schedule, SAVED_AT, STEPS)
    torch.testing.assert_close(got, torch.full_like(got, now / RATIO), rtol=1e-12, atol=0)

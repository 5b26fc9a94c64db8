"""Hyperparameters of the checkpoint win, and each that differs is said in a line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    MultiStepLR,
    OneCycleLR,
    SequentialLR,
)

from liontool.optim import Lion
from support.run_parts import Parts, net


def _parts(kind: Any = torch.optim.AdamW, scheduler: Any = None, **options: Any) -> Parts:
    model = net()
    optimizer = kind(model.parameters(), **{"lr": 0.01, **options})
    return Parts(model, optimizer, None if scheduler is None else scheduler(optimizer))


def _said(saved: Parts, parts: Parts, folder: Path) -> list[str]:
    parts.resume(saved.train(0, 3).save(folder / "run"))
    return parts.lines


def _wins(name: str, old: str, new: str) -> str:
    return f"{name} is {old}, the checkpoint's, and not {new}, as constructed"


def test_options_of_groups(tmp_path: Path) -> None:
    """One line for each, with the way to change it on purpose."""
    parts = _parts(lr=0.02, betas=(0.8, 0.9))
    assert _said(_parts(weight_decay=0.5), parts, tmp_path) == [
        _wins("optimizer.lr", "0.01", "0.02") + "; to change it: overrides=dict(lr=...)",
        _wins("optimizer.betas", "0.9, 0.999", "0.8, 0.9")
        + "; to change it: overrides=dict(betas=...)",
        _wins("optimizer.weight_decay", "0.5", "0.01")
        + "; to change it: overrides=dict(weight_decay=...)",
    ]
    group = parts.optimizer.param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (0.01, (0.9, 0.999), 0.5)


def test_several_groups_differ_in_one_line(tmp_path: Path) -> None:
    """With what each group has."""

    def build(lr: float) -> Parts:
        model = net()
        groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": lr}]
        return Parts(model, torch.optim.SGD(groups, lr=0.1))

    (line,) = _said(build(0.2), build(0.3), tmp_path)
    assert line.startswith(_wins("optimizer.lr", "0.1 | 0.2", "0.1 | 0.3"))


def test_what_a_scheduler_moves_is_no_difference(tmp_path: Path) -> None:
    """The learning rate of the moment is not the constructor's, and need not be."""

    def cycle(optimizer: Any) -> Any:
        return OneCycleLR(optimizer, 0.1, total_steps=20)

    assert _said(_parts(scheduler=cycle), _parts(scheduler=cycle), tmp_path) == []


def test_initial_rates_are_compared_under_a_scheduler(tmp_path: Path) -> None:
    """That is what a constructor was given."""

    def decay(optimizer: Any) -> Any:
        return ExponentialLR(optimizer, 0.9)

    (line,) = _said(_parts(scheduler=decay), _parts(scheduler=decay, lr=0.02), tmp_path)
    assert line == (
        _wins("optimizer.initial_lr", "0.01", "0.02") + "; to change it: overrides=dict(lr=...)"
    )


def test_counters_are_no_hyperparameters(tmp_path: Path) -> None:
    """A Lion keeps its steps in its groups."""
    saved = _parts(Lion)
    saved.optimizer.param_groups[0]["horizon"] = 5.0
    parts = _parts(Lion)
    assert _said(saved, parts, tmp_path) == []
    assert int(parts.optimizer.param_groups[0]["step"]) == 3


def test_what_the_user_put_into_a_group(tmp_path: Path) -> None:
    """It is compared though no constructor takes it."""
    saved, parts = _parts(), _parts()
    saved.optimizer.param_groups[0]["depth"] = 3
    parts.optimizer.param_groups[0]["depth"] = 4
    (line,) = _said(saved, parts, tmp_path)
    assert line.startswith(_wins("optimizer.depth", "3", "4"))


@pytest.mark.parametrize("name", ["foreach", "differentiable"])
def test_how_to_compute_is_the_machines(name: str, tmp_path: Path) -> None:
    """The live option stays, and the level is no longer exact."""
    parts = _parts(**{name: True})
    census = parts.resume(_parts(foreach=False).train(0, 3).save(tmp_path / "run"))
    assert parts.optimizer.param_groups[0][name] is True
    line = next(line for line in parts.lines if name in line)
    reason = f"optimizer.{name} is yes, as constructed, and was no"
    assert line == f"{reason}: it says how to compute, not what"
    assert reason in census.reasons()


def _cosine(length: int) -> Any:
    return lambda optimizer: CosineAnnealingLR(optimizer, length)


def test_arguments_of_schedulers(tmp_path: Path) -> None:
    """They lie in its state, so the checkpoint's win without a word of torch."""
    parts = _parts(scheduler=_cosine(20))
    assert _said(_parts(scheduler=_cosine(10)), parts, tmp_path) == [
        _wins("scheduler.T_max", "10", "20")
    ]
    assert parts.scheduler.T_max == 10


def test_arguments_of_schedulers_inside_of_others(tmp_path: Path) -> None:
    """However deep."""

    def build(length: int, milestone: int) -> Any:
        def make(optimizer: Any) -> Any:
            parts = [MultiStepLR(optimizer, [length], 0.5), CosineAnnealingLR(optimizer, length)]
            return SequentialLR(optimizer, parts, [milestone])

        return _parts(scheduler=make)

    assert _said(build(10, 2), build(20, 4), tmp_path) == [
        _wins("scheduler._milestones", "2", "4"),
        _wins("scheduler.0.milestones", "10 1", "20 1"),
        _wins("scheduler.1.T_max", "10", "20"),
    ]


def test_the_options_of_an_extra_optimizer(tmp_path: Path) -> None:
    """They are said too, under its keyword."""

    def build(lr: float) -> Parts:
        parts = _parts()
        parts.extras = {"second": torch.optim.SGD(parts.model[0].parameters(), lr=lr)}
        return parts

    assert _said(build(0.1), build(0.2), tmp_path) == [_wins("second.lr", "0.1", "0.2")]


def test_an_option_that_only_this_torch_has(tmp_path: Path) -> None:
    """It stays as it was constructed."""
    saved = _parts()
    del saved.optimizer.param_groups[0]["maximize"]
    parts = _parts(maximize=True)
    parts.resume(saved.save(tmp_path / "run"))
    assert parts.optimizer.param_groups[0]["maximize"] is True

"""Overrides change hyperparameters as `liontool edit` does: curves keep their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LambdaLR

from liontool.errors import ResumeError
from liontool.optim import Lion
from support import schedules
from support.run_parts import Parts, net


def _parts(scheduler: Any = None, kind: Any = torch.optim.AdamW, **options: Any) -> Parts:
    model = net()
    groups = [{"params": model[0].parameters()}, {"params": model[2].parameters(), **options}]
    optimizer = kind(groups, lr=0.01, weight_decay=0.1)
    return Parts(model, optimizer, None if scheduler is None else scheduler(optimizer))


def _rates(parts: Parts, first: int, last: int) -> list[list[float]]:
    found = []
    for step in range(first, last):
        parts.train(step, step + 1)
        found.append([float(group["lr"]) for group in parts.optimizer.param_groups])
    return found


def _of(parts: Parts, name: str) -> list[Any]:
    return [group[name] for group in parts.optimizer.param_groups]


def test_values_of_groups(tmp_path: Path) -> None:
    """They win over the checkpoint's and the constructor's, and no line says otherwise."""
    parts = _parts(betas=(0.5, 0.6))
    parts.resume(_parts().train(0, 3).save(tmp_path / "run"), lr=0.002, betas=[0.8, 0.95], eps=1e-6)
    assert _of(parts, "lr") == [0.002] * 2
    assert _of(parts, "betas") == [(0.8, 0.95)] * 2
    assert _of(parts, "eps") == [1e-6] * 2
    assert [line for line in parts.lines if "checkpoint's" in line] == []


def test_a_second_resume_changes_nothing_more(tmp_path: Path) -> None:
    """A script that is started again and again has the same overrides each time."""
    first = _parts(schedules.cosine)
    first.resume(_parts(schedules.cosine).train(0, 3).save(tmp_path / "run"), lr=0.002)
    second = _parts(schedules.cosine)
    second.resume(first.save(tmp_path / "again"), lr=0.002)
    assert (
        second.optimizer.state_dict()["param_groups"]
        == (first.optimizer.state_dict()["param_groups"])
    )
    assert second.scheduler.state_dict() == first.scheduler.state_dict()


@pytest.mark.filterwarnings("ignore:Detected call of .lr_scheduler.step")
@pytest.mark.parametrize("make", schedules.MAKERS, ids=lambda make: make.__name__)
def test_every_schedule_keeps_its_shape(make: Any, tmp_path: Path) -> None:
    """All later learning rates have the factor that the base has."""
    checkpoint = _parts(make, lr=0.03).train(0, 3).save(tmp_path / "run")
    plain, changed = _parts(make, lr=0.03), _parts(make, lr=0.03)
    plain.resume(checkpoint)
    changed.resume(checkpoint, lr=0.002)
    factor = _of(changed, "initial_lr")[0] / _of(plain, "initial_lr")[0]
    assert factor < 1
    expected = [[rate * factor for rate in rates] for rates in _rates(plain, 3, 45)]
    assert _rates(changed, 3, 45) == [pytest.approx(rates, rel=1e-9) for rates in expected]


def test_groups_with_their_own_rates_keep_their_ratio(tmp_path: Path) -> None:
    """The highest becomes the value."""
    parts = _parts(lr=0.04)
    parts.resume(_parts(lr=0.04).save(tmp_path / "run"), lr=0.02)
    assert _of(parts, "lr") == pytest.approx([0.005, 0.02])


def test_no_decay_stays_no_decay(tmp_path: Path) -> None:
    """A group without decay is one that must have none, and that is said."""
    parts = _parts(weight_decay=0.0)
    parts.resume(_parts(weight_decay=0.0).save(tmp_path / "run"), weight_decay=0.3)
    assert _of(parts, "weight_decay") == [0.3, 0.0]
    assert parts.lines == [
        "overrides: group 1: a weight decay of 0 stays 0; to set it: groups.1.weight_decay=0.3"
    ]


def test_rates_in_tensors(tmp_path: Path) -> None:
    """They stay tensors, in groups and in schedulers."""

    def build() -> Parts:
        model = net()
        optimizer = torch.optim.AdamW(model.parameters(), lr=torch.tensor(0.01), foreach=False)
        return Parts(model, optimizer, ExponentialLR(optimizer, 0.9))

    parts = build()
    parts.resume(build().train(0, 3).save(tmp_path / "run"), lr=0.005)
    (lr,) = _of(parts, "lr")
    assert isinstance(lr, torch.Tensor)
    assert float(lr) == pytest.approx(0.005 * 0.9**3)
    assert float(parts.scheduler.base_lrs[0]) == pytest.approx(0.005)


def test_a_schedule_of_code_is_said(tmp_path: Path) -> None:
    """What lies in the script cannot be moved."""

    def build() -> Parts:
        return _parts(lambda one: LambdaLR(one, lambda step: 0.9**step))

    parts = build()
    parts.resume(build().save(tmp_path / "run"), lr=0.005)
    assert "LambdaLR or MultiplicativeLR in scheduler: its factor is code" in " ".join(parts.lines)


def test_a_fresh_start() -> None:
    """Overrides say what holds from here on, at the first start as at any other."""
    parts = _parts(schedules.cosine)
    parts.census().begin({"lr": 0.002, "weight_decay": 0.5})
    assert _of(parts, "lr") == _of(parts, "initial_lr") == [0.002] * 2
    assert _of(parts, "weight_decay") == [0.5] * 2
    assert parts.scheduler.base_lrs == [0.002] * 2


def test_a_fresh_start_without_overrides() -> None:
    """Nothing is loaded."""
    parts = _parts()
    groups = parts.optimizer.param_groups
    parts.census().begin({})
    assert parts.optimizer.param_groups is groups


def test_a_scheduler_that_is_new(tmp_path: Path) -> None:
    """What was allowed to replace the checkpoint's is changed as that would be."""
    saved = _parts(lambda one: ExponentialLR(one, 0.9)).train(0, 3).save(tmp_path / "run")
    parts = _parts(lambda one: CosineAnnealingLR(one, 10))
    parts.resume(saved, allow="scheduler", lr=0.002)
    assert _of(parts, "lr") == [0.002] * 2
    assert parts.scheduler.base_lrs == [0.002] * 2


def test_lion(tmp_path: Path) -> None:
    """Its decay stays relative to its first rate, which moves along."""

    def build() -> Parts:
        return _parts(kind=lambda groups, **options: Lion(
            groups, decoupled_weight_decay=True, **options
        ))  # fmt: skip

    parts = build()
    parts.resume(build().train(0, 3).save(tmp_path / "run"), lr=0.005)
    assert _of(parts, "lr") == _of(parts, "reference_lr") == [0.005] * 2


@pytest.mark.parametrize(
    ("overrides", "match"),
    [
        (
            {"learning_rate": 0.1},
            "^overrides: no group of the optimizer has 'learning_rate'; there is lr, betas, eps, "
            "weight_decay, amsgrad, maximize, foreach, capturable, differentiable, fused, decoupl",
        ),
        ({"initial_lr": 0.1}, "^overrides: initial_lr is not set by itself: .* lr= sets that$"),
        ({"lr": "x0.5"}, r"^overrides: lr takes a number such as 3e-5"),
        ({"lr": -1.0}, "^overrides: lr must be a finite number and not negative, got -1.0$"),
        ({"lr": float("nan")}, "^overrides: lr must be a finite number"),
        ({"betas": (0.9, 1.0)}, r"^overrides: group 0: betas\[1\] must lie in \[0, 1\), got 1.0$"),
        ({"betas": 0.9}, "^overrides: group 0: betas are several"),
        ({"eps": "much"}, "^overrides: group 0: eps is a number"),
    ],
)
def test_what_cannot_be_meant(overrides: Any, match: str, tmp_path: Path) -> None:
    """The word and what is allowed are named, and nothing was loaded."""
    saved = _parts(schedules.cosine).train(0, 3).save(tmp_path / "run")
    parts = _parts(schedules.cosine)
    with pytest.raises(ResumeError, match=match):
        parts.resume(saved, **overrides)
    assert parts.scheduler.last_epoch == 0
    assert len(parts.optimizer.state) == 0


def test_an_optimizer_that_is_none_of_torchs() -> None:
    """Its hyperparameters lie somewhere else."""
    parts = Parts(net(), torch.amp.GradScaler("cpu"))
    match = "^overrides: .*GradScaler is no torch.optim.Optimizer, so set them on it$"
    with pytest.raises(ResumeError, match=match):
        parts.census().begin({"lr": 0.1})

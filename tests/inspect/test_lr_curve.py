"""The remaining learning rates, compared with torch's own schedulers step by step."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

from liontool.checkpoint.model import Fields, ParamGroup, Scheduler
from liontool.inspect.lr_curve import Curve, remaining
from liontool.inspect.opening import opened
from liontool.inspect.schedules.course import NotTold, Setting
from liontool.inspect.schedules.rules import course, epoch_of
from support.schedules import (
    LAST,
    MAKERS,
    Make,
    chained,
    cosine,
    linear,
    one_cycle,
    rates_of,
    resumed,
    save,
    shows,
    step,
    stepped,
    swa_at_once,
    two_groups,
)

# Torch steps the parts of a sequence while it makes them.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")


def saved(
    optimizer: torch.optim.Optimizer, scheduler: Any, folder: Path
) -> tuple[Scheduler, tuple[ParamGroup, ...]]:
    """Both as liontool finds them in a file."""
    path = folder / "a.pt"
    save(optimizer, scheduler, path)
    checkpoint = opened(path).checkpoint
    assert checkpoint is not None
    (found,) = checkpoint.optimizers
    return found.schedulers[0], found.groups


@pytest.mark.parametrize("position", [0, 1, 5, 11, 24])
@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_every_step_is_that_of_torch(make: Make, position: int, tmp_path: Path) -> None:
    """A jump over n steps leads to the rate that torch comes to in n steps, in every group."""
    scheduler, groups = saved(*stepped(make, position), tmp_path)
    courses = [
        course(Setting(scheduler, group.fields, i, epoch_of(scheduler)))
        for i, group in enumerate(groups)
    ]
    optimizer, real = resumed(make, tmp_path / "a.pt")
    rates = [group["lr"] for group in optimizer.param_groups]
    for n in range(1, LAST - position):
        real.step()
        expected = [group["lr"] for group in optimizer.param_groups]
        jumps = [
            one.after(lr, epoch_of(scheduler), n) for one, lr in zip(courses, rates, strict=True)
        ]
        assert jumps == pytest.approx(expected, rel=1e-9, abs=1e-15), f"after {n} steps"


AROUND_MILESTONES = (0, 2, 3, 4, 5, 6, 10, 11, 12, 14, 15, 19, 22, 24, 25, 34, 39, 40, 43, 44)


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_a_change_of_lr_alone_lasts_as_long_as_in_torch(make: Make, tmp_path: Path) -> None:
    """Changed in the file, lr differs in torch for `lasts` steps, and never after them."""
    for position in AROUND_MILESTONES:
        curve = remaining(*saved(*stepped(make, position), tmp_path))
        assert curve.lasts is not None
        left = LAST - 1 - position
        both = (rates_of(make, tmp_path / "a.pt", factor, left) for factor in (1.0, 0.5))
        seen = [shows(*rates) for rates in zip(*both, strict=True)]
        for n, differs in enumerate(seen, start=1):
            assert differs in (None, n < curve.lasts), f"from step {position}, {n} steps on"


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_the_next_rate_is_known_at_the_end_as_well(make: Make, tmp_path: Path) -> None:
    """One step on there is the rate of torch, wherever the curve ends."""
    for position in (0, 19, 24, 39, 40, LAST - 1):
        curve = remaining(*saved(*stepped(make, position), tmp_path))
        (expected,) = rates_of(make, tmp_path / "a.pt", 1.0, 1)
        for one in curve.curves:
            assert [one.next_rate] * len(one.groups) == pytest.approx(
                [expected[i] for i in one.groups], rel=1e-9, abs=1e-15
            )


def test_no_next_rate_where_torch_fails(tmp_path: Path) -> None:
    """A OneCycleLR at its last step has none."""
    curve = remaining(*saved(*stepped(one_cycle, LAST), tmp_path))
    assert {one.next_rate for one in curve.curves} == {None}


def test_how_long_a_change_lasts_under_code_is_not_told(tmp_path: Path) -> None:
    """LambdaLR forgets the group's lr, MultiplicativeLR does not, and they look the same."""
    optimizer = two_groups()
    scheduler = torch_schedulers.LambdaLR(optimizer, lambda step: 1.0)
    assert curve_of(scheduler, optimizer, tmp_path).lasts is None
    scheduler = torch_schedulers.SequentialLR(optimizer, [scheduler, step(optimizer)], [9])
    assert curve_of(scheduler, optimizer, tmp_path).lasts is None
    code = torch_schedulers.LambdaLR(optimizer, lambda step: 1.0)
    for parts in ([code, step(optimizer)], [step(optimizer), code]):
        scheduler = torch_schedulers.ChainedScheduler(parts)
        assert curve_of(scheduler, optimizer, tmp_path).lasts is None


@pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)
def test_points_of_the_curve(make: Make, tmp_path: Path) -> None:
    """The curve begins at now, goes to its end in order, and all of its points are known."""
    scheduler, groups = saved(*stepped(make, 3), tmp_path)
    curve = remaining(scheduler, groups)
    assert (curve.reason, curve.position) == (None, 3)
    assert curve.span > 0 or make is swa_at_once
    for one in curve.curves:
        assert (one.steps[0], one.steps[-1]) == (0, curve.span)
        assert list(one.steps) == sorted(set(one.steps))
        assert all(rate is not None and rate >= 0 for rate in one.rates)
    assert sorted(i for one in curve.curves for i in one.groups) == [0, 1]


def curve_of(scheduler: Any, optimizer: torch.optim.Optimizer, folder: Path) -> Curve:
    return remaining(*saved(optimizer, scheduler, folder))


def test_a_peak_between_two_points_is_not_missed(tmp_path: Path) -> None:
    """Corners of the curve are points of their own."""
    optimizer = two_groups()
    scheduler = torch_schedulers.OneCycleLR(optimizer, 0.5, total_steps=100_000, pct_start=0.1234)
    curve = curve_of(scheduler, optimizer, tmp_path)
    (one,) = curve.curves
    assert max(rate for rate in one.rates if rate is not None) == pytest.approx(0.5)
    assert len(one.steps) < 100


def test_a_long_schedule_costs_as_little_as_a_short_one(tmp_path: Path) -> None:
    """The number of points does not grow with the number of steps."""
    optimizer = two_groups()
    scheduler = torch_schedulers.StepLR(optimizer, 10**8)
    (one, _) = curve_of(scheduler, optimizer, tmp_path).curves
    assert one.steps[-1] == 4 * 10**8
    assert len(one.steps) < 100


def test_groups_with_the_same_rates_share_a_curve(tmp_path: Path) -> None:
    """Groups that differ in weight decay alone have one curve."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(1))]} for _ in range(5)]
    groups[3]["lr"] = 0.5
    optimizer = torch.optim.AdamW(groups, lr=0.01)
    curve = curve_of(cosine(optimizer), optimizer, tmp_path)
    assert [one.groups for one in curve.curves] == [(0, 1, 2, 4), (3,)]


def test_thousands_of_groups() -> None:
    """The number of curves, and of points in all of them, has a limit."""
    rates = [0.1 + 1e-6 * i for i in range(3000)]
    groups = [ParamGroup(Fields({"lr": rate}), (i,)) for i, rate in enumerate(rates)]
    state = {"T_max": 1000, "eta_min": 0.0, "base_lrs": rates, "last_epoch": 0}
    curve = remaining(Scheduler(Fields(state)), groups)
    assert len(curve.curves) == 64
    assert sum(len(one.steps) for one in curve.curves) < 1000


def test_code_is_not_guessed(tmp_path: Path) -> None:
    """A LambdaLR has no curve in the file, and that is what is said."""
    optimizer = two_groups()
    scheduler = torch_schedulers.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    curve = curve_of(scheduler, optimizer, tmp_path)
    assert (curve.then, curve.span, curve.curves) == ("is code", 0, ())


@pytest.mark.parametrize(("factor", "then"), [(0.5, "stays"), (0.6, "is code")])
def test_code_that_is_known_is_believed_if_it_gives_the_rate_of_now(
    factor: float, then: str, tmp_path: Path
) -> None:
    """What a framework's arguments say of a LambdaLR counts only where it fits the file."""
    optimizer = two_groups()
    scheduler = torch_schedulers.LambdaLR(optimizer, lambda step: 0.5)
    found, groups = saved(optimizer, scheduler, tmp_path)
    curve = remaining(found, groups, (lambda step: factor, 20))
    assert curve.then == then
    assert curve.span == (20 if then == "stays" else 0)


def test_code_inside_a_sequence_leaves_a_gap(tmp_path: Path) -> None:
    """What follows the part that is code is known again."""
    optimizer = two_groups()
    warm_up = torch_schedulers.LambdaLR(optimizer, lambda step: step / 10)
    parts = [warm_up, cosine(optimizer)]
    scheduler = torch_schedulers.SequentialLR(optimizer, parts, [10])
    (one, _) = curve_of(scheduler, optimizer, tmp_path).curves
    known = dict(zip(one.steps, one.rates, strict=True))
    assert known[0] == 0.0
    assert known[9] is None
    assert known[10] == 0.01


def test_plateau_waits_for_a_metric(tmp_path: Path) -> None:
    """ReduceLROnPlateau holds its rate until a metric tells otherwise."""
    optimizer = two_groups()
    scheduler = torch_schedulers.ReduceLROnPlateau(optimizer)
    assert curve_of(scheduler, optimizer, tmp_path).then == "waits for a metric"


def test_one_cycle_fails_beyond_its_end(tmp_path: Path) -> None:
    """OneCycleLR raises an error one step after its last; the curve says so."""
    optimizer, scheduler = stepped(one_cycle, 3)
    curve = curve_of(scheduler, optimizer, tmp_path)
    assert (curve.span, curve.then) == (LAST - 1 - 3, "fails")
    found, groups = saved(optimizer, scheduler, tmp_path)
    one = course(Setting(found, groups[0].fields, 0, 3))
    assert math.isnan(one.after(0.1, 3, LAST - 2))


def test_a_sequence_that_torch_cannot_start(tmp_path: Path) -> None:
    """Torch fails at the milestone of a ChainedScheduler inside a SequentialLR; no curve then."""
    optimizer = two_groups()
    parts = [linear(optimizer), chained(optimizer)]
    scheduler = torch_schedulers.SequentialLR(optimizer, parts, [5])
    curve = curve_of(scheduler, optimizer, tmp_path)
    assert "torch itself fails" in (curve.reason or "")
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    with pytest.raises(NotImplementedError):
        scheduler.step()


def made(fields: dict[str, Any], group: dict[str, Any] | None = None) -> Curve:
    """The curve of fields that no file needs to hold."""
    own = ParamGroup(Fields({"lr": 0.1, **(group or {})}), (0,))
    return remaining(Scheduler(Fields({"last_epoch": 3, "base_lrs": [0.1], **fields})), [own])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"T_max": 0, "eta_min": 0.0}, "T_max is 0"),
        ({"T_max": "x", "eta_min": 0.0}, "no number T_max"),
        ({"T_max": math.nan, "eta_min": 0.0}, "no number T_max"),
        ({"T_max": 9, "eta_min": 0.0, "base_lrs": []}, "no base_lrs for group 0"),
        ({"T_max": 9, "eta_min": 0.0, "base_lrs": None}, "no base_lrs for group 0"),
        ({"T_max": 9, "eta_min": 0.0, "last_epoch": -1}, "not begun"),
        ({"T_0": 5, "T_i": 0, "T_cur": 3, "T_mult": 1, "eta_min": 0}, "T_i is 0"),
        ({"T_0": 5, "T_i": 5, "T_cur": 3, "T_mult": 1.5, "eta_min": 0}, "T_mult is 1.5"),
        ({"step_size": 0, "gamma": 0.1}, "step_size is 0"),
        ({"step_size": -2, "gamma": 0.1}, "step_size is -2"),
        ({"milestones": None, "gamma": 0.1}, "no milestones"),
        ({"milestones": ["x"], "gamma": 0.1}, "milestones are no counts"),
        ({"total_steps": 9, "_schedule_phases": []}, "no phases"),
        ({"total_steps": 9, "_schedule_phases": [3]}, "phases are no phases"),
        (
            {"total_steps": 9, "_schedule_phases": [{"end_step": 8, "start_lr": "max_lr"}]},
            "group 0 has no max_lr",
        ),
        ({"_milestones": [5]}, "1 milestones for 0 schedulers"),
        ({"_milestones": 5}, "no _milestones"),
        ({"anything": 1}, "class is not known"),
    ],
)
def test_damaged_state_has_no_curve(fields: dict[str, Any], reason: str) -> None:
    """What cannot be evaluated gives a reason, not an error."""
    assert reason in (made(fields).reason or "")


@pytest.mark.parametrize(
    "fields",
    [
        {"gamma": 1e300},
        {"gamma": -0.5},
        {"total_iters": 5, "power": -3.0},
        {"total_iters": 5, "start_factor": 0.0, "end_factor": 0.0},
        {"total_iters": 9, "factor": 0.0},
        {"total_size": 0.0, "step_ratio": 0.0, "max_lrs": [1.0], "mode": "triangular"},
        {"milestones": {5: 10**12}, "gamma": 10.0},
        {"T_max": 1e-300, "eta_min": 0.0},
        {"T_max": 10**18, "eta_min": 0.0},
    ],
)
def test_numbers_without_sense_end_in_points_or_a_reason(fields: dict[str, Any]) -> None:
    """Overflow, division by zero and the like are points that are not known."""
    curve = made(fields)
    assert curve.reason or all(
        rate is None or math.isfinite(rate) for one in curve.curves for rate in one.rates
    )


def test_groups_without_rates() -> None:
    """A group without lr has no curve."""
    curve = remaining(Scheduler(Fields({"last_epoch": 1})), [])
    assert curve.reason == "there are no groups"
    own = ParamGroup(Fields({}), (0,))
    state = {"gamma": 0.9, "base_lrs": [1.0], "last_epoch": 0}
    assert remaining(Scheduler(Fields(state)), [own]).reason == "group 0 has no lr"


def test_an_unknown_class_is_refused_by_name() -> None:
    """A rule is asked for a class that is known, and not evaluated."""
    megatron = {"max_lr": 1, "min_lr": 0, "lr_decay_style": "cosine", "num_steps": 5}
    with pytest.raises(NotTold, match="Megatron's scheduler is not evaluated"):
        course(Setting(Scheduler(Fields(megatron)), Fields({"lr": 0.1}), 0, 5))

"""When saves are due."""

from __future__ import annotations

from typing import Any

import pytest

from liontool.resume.save_every import SaveEvery, Schedule


class Clock:
    """Time that passes when it is told to."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("value", "every"),
    [
        (1, SaveEvery(steps=1)),
        (500, SaveEvery(steps=500)),
        ("60s", SaveEvery(seconds=60.0)),
        ("0.5s", SaveEvery(seconds=0.5)),
        ("10m", SaveEvery(seconds=600.0)),
        ("2h", SaveEvery(seconds=7200.0)),
    ],
)
def test_values(value: Any, every: SaveEvery) -> None:
    """A number is steps; a number with a unit is a time."""
    assert SaveEvery.of(value) == every


@pytest.mark.parametrize(
    "value",
    [0, -1, True, 1.5, None, "60", "s", "0s", "-1s", " 60s", "60 s", "1d", b"60s", "9" * 999 + "h"],
)
def test_wrong_values(value: Any) -> None:
    """Anything else is an error that says what is allowed."""
    with pytest.raises(ValueError, match="a number of steps from 1, or a time such as '60s'"):
        SaveEvery.of(value)


def test_steps() -> None:
    """Due at multiples, whatever step the last save was of; one that was missed is due next."""
    schedule = Schedule(SaveEvery(steps=3), 0)
    assert [schedule.is_due(step) for step in (0, 1, 2, 3, 4)] == [False, False, False, True, True]
    schedule.saved(4)
    assert [schedule.is_due(step) for step in (5, 6)] == [False, True]


def test_steps_after_a_restart() -> None:
    """The step that the run goes on from is saved already."""
    schedule = Schedule(SaveEvery(steps=3), 3)
    assert [schedule.is_due(step) for step in (3, 5, 6)] == [False, False, True]


def test_time() -> None:
    """Due so long after the last save began, and only once a step was made since."""
    clock = Clock()
    schedule = Schedule(SaveEvery(seconds=60), 7, clock)
    clock.now += 59
    assert not schedule.is_due(8)
    clock.now += 1
    assert schedule.is_due(8)
    assert not schedule.is_due(7)
    schedule.saved(8)
    assert not schedule.is_due(9)
    clock.now += 60
    assert schedule.is_due(9)

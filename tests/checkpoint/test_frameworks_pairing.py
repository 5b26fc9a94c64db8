"""Which scheduler belongs to which optimizer."""

from __future__ import annotations

import pytest

from liontool.checkpoint.frameworks import plain
from support.fake_source import FakeSource, adamw, cosine


def pairs(tree):
    """Labels of the schedulers of each optimizer, and of the loose ones."""
    checkpoint = plain.find(FakeSource(tree))
    owned = {o.label: [s.label for s in o.schedulers] for o in checkpoint.optimizers}
    return owned, [s.label for s in checkpoint.loose_schedulers]


def test_by_learning_rates():
    """Rates decide, not the order."""
    tree = {
        "g": adamw(lr=1e-3, initial_lr=1e-3),
        "d": adamw(lr=4e-3, initial_lr=4e-3),
        "s": [cosine(4e-3), cosine(1e-3)],
    }
    assert pairs(tree) == ({"g": ["s.1"], "d": ["s.0"]}, [])


def test_one_scheduler_for_the_second():
    """Only an optimizer that has a scheduler has `initial_lr`."""
    tree = {"g": adamw(), "d": adamw(initial_lr=1e-3), "s": cosine(1e-3)}
    assert pairs(tree) == ({"g": [], "d": ["s"]}, [])


def test_twins_go_by_position():
    """With the same rates and one scheduler each, the order of the file holds."""
    twin = {"initial_lr": 1e-3}
    tree = {"g": adamw(**twin), "d": adamw(**twin), "s": [cosine(1e-3), cosine(1e-3)]}
    assert pairs(tree) == ({"g": ["s.0"], "d": ["s.1"]}, [])


def test_one_scheduler_for_twins_is_loose():
    """Nothing tells which of two equal optimizers a single scheduler drives."""
    tree = {"g": adamw(initial_lr=1e-3), "d": adamw(initial_lr=1e-3), "s": cosine(1e-3)}
    assert pairs(tree) == ({"g": [], "d": []}, ["s"])


def test_other_number_of_groups_is_loose():
    """A scheduler of two groups does not drive an optimizer of one."""
    tree = {"o": adamw(initial_lr=1e-3), "s": cosine(1e-3, 1e-3)}
    assert pairs(tree) == ({"o": []}, ["s"])


def test_several_for_one():
    """An optimizer may have several schedulers."""
    tree = {"o": adamw(initial_lr=1e-3), "s": [cosine(1e-3), cosine(1e-3)]}
    assert pairs(tree) == ({"o": ["s.0", "s.1"]}, [])


def test_plateau_by_last_lr():
    """ReduceLROnPlateau writes no `initial_lr`; its last rates are those of the groups."""
    plateau = {"last_epoch": 3, "factor": 0.1, "min_lrs": [0.0], "best": 2.0, "_last_lr": [5e-4]}
    tree = {"a": adamw(lr=5e-4), "b": adamw(lr=1e-3), "s": plateau}
    assert pairs(tree) == ({"a": ["s"], "b": []}, [])


@pytest.mark.parametrize("key", ["base_lrs", "_last_lr"])
def test_nested_rates(key):
    """ChainedScheduler's rates are those of its parts."""
    child = {"last_epoch": 3, "base_lrs": [4e-3], "_last_lr": [2e-3]}
    del child["_last_lr" if key == "base_lrs" else "base_lrs"]
    tree = {
        "a": adamw(lr=1e-3, initial_lr=1e-3),
        "b": adamw(lr=2e-3, initial_lr=4e-3),
        "s": {"_schedulers": [child]},
    }
    assert pairs(tree) == ({"a": [], "b": ["s"]}, [])

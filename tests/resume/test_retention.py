"""Which checkpoints stay, and what happens where one does not go."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from liontool.checkpoint.run_folder.choosing import checkpoints, choose
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.layout import COMMIT, is_leftover, step_name
from liontool.resume.leftovers import leftovers
from liontool.resume.retention import Keep, doomed, prune
from support.checkpoints import saved
from support.faults import Death, Faults, Killed


def _commits(metrics: dict[int, float | None]) -> dict[Path, Commit]:
    made = {step: Commit(step, 0, metric, 0.0, {}) for step, metric in metrics.items()}
    return {Path(step_name(step)): commit for step, commit in made.items()}


def _kept(metrics: dict[int, float | None], **keep: Any) -> list[int]:
    commits = _commits(metrics)
    gone = doomed(commits, Keep.of(keep))
    return sorted(commit.step for path, commit in commits.items() if path not in gone)


TEN: dict[int, float | None] = dict.fromkeys(range(100, 1100, 100))


def test_last() -> None:
    """The newest stay, three if nothing is said; two whatever is said."""
    assert _kept(TEN) == [800, 900, 1000]
    assert _kept(TEN, last=5) == [600, 700, 800, 900, 1000]
    assert _kept(TEN, last=1) == [900, 1000]
    assert _kept({7: None}, last=1) == [7]


def test_every() -> None:
    """Multiples of a step stay beside the newest."""
    assert _kept(TEN, last=2, every=300) == [300, 600, 900, 1000]


def test_best() -> None:
    """The lowest metrics stay; of equals the newer, and NaN was never the best."""
    metrics: dict[int, float | None] = dict.fromkeys(range(1, 9), 5.0)
    metrics |= {1: float("nan"), 2: 0.5, 3: None, 4: float("-inf"), 5: 0.5}
    assert _kept(metrics, last=2, best=1) == [4, 7, 8]
    assert _kept(metrics, last=2, best=2) == [4, 5, 7, 8]
    assert _kept(metrics, last=2, best=3) == [2, 4, 5, 7, 8]


@pytest.mark.parametrize("broken", range(1, 9))
def test_best_of_a_run_that_broke(broken: int) -> None:
    """NaN compares with nothing, so wherever it stands it must not spoil the order."""
    metrics: dict[int, float | None] = {step: float(step) for step in range(1, 9)}
    metrics[broken] = float("nan")
    best = 2 if broken == 1 else 1
    assert _kept(metrics, last=2, best=1) == [best, 7, 8]


def test_order() -> None:
    """The oldest goes first, so that a removal that ends early leaves the newer ones."""
    assert [path.name for path in doomed(_commits(TEN), Keep(last=8))] == [
        step_name(100), step_name(200)
    ]  # fmt: skip


@given(
    st.dictionaries(st.integers(0, 50), st.none() | st.floats(), max_size=12),
    st.builds(
        Keep, st.integers(1, 5), st.none() | st.integers(1, 7), st.none() | st.integers(1, 3)
    ),
)
def test_newest_two_stay(metrics: dict[int, float | None], keep: Keep) -> None:
    """Whatever is asked for: the newest two stay, each wish is met, and the rest goes."""
    commits = _commits(metrics)
    gone = {commits[path].step for path in doomed(commits, keep)}
    newest = sorted(metrics, reverse=True)
    assert gone.isdisjoint(newest[: max(2, keep.last)])
    assert keep.every is None or all(step % keep.every for step in gone)
    assert len(metrics) - len(gone) <= max(2, keep.last) + (keep.best or 0) + (
        len([step for step in metrics if step % keep.every == 0]) if keep.every else 0
    )
    assert {commits[path].step for path in doomed(
        {path: one for path, one in commits.items() if one.step not in gone}, keep
    )} == set()  # fmt: skip


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        ({"last": 0}, "keep: last must be a whole number from 1, got 0"),
        ({"every": 2.5}, "keep: every must be a whole number from 1, got 2.5"),
        ({"best": True}, "keep: best must be a whole number from 1, got True"),
        ({"last": None}, "keep: last must be a whole number from 1, got None"),
        ({"lats": 3}, "keep: unknown 'lats'; choose from: last, every, best"),
        (3, r"keep must be a dict such as dict\(last=3\), got 3"),
    ],
)
def test_wrong_keep(keep: Any, message: str) -> None:
    """What cannot be meant is refused before anything is trained."""
    with pytest.raises(ValueError, match=message):
        Keep.of(keep)


def test_keep_of_keep() -> None:
    """A Keep is taken as it is."""
    assert Keep.of(Keep(last=7)) == Keep.of({"last": 7}) == Keep(last=7)


# --- on disk ------------------------------------------------------------------------------------


def test_prune(tmp_path: Path) -> None:
    """What nothing wants is gone, and nothing is left of it."""
    for step in (100, 200, 300, 400):
        saved(tmp_path, step)
    done = prune(tmp_path, Keep(last=2))
    assert [path.name for path in done.removed] == [step_name(100), step_name(200)]
    assert not done.failures
    assert sorted(os.listdir(tmp_path)) == [step_name(300), step_name(400)]


def test_only_committed_count(tmp_path: Path) -> None:
    """One without COMMIT, or of the wrong size, is neither counted nor removed."""
    for step in (100, 200, 300):
        saved(tmp_path, step)
    for step in (400, 500):
        (saved(tmp_path, step) / COMMIT).unlink()
    (saved(tmp_path, 600) / "run.json").write_bytes(b"")
    assert [path.name for path in prune(tmp_path, Keep(last=2)).removed] == [step_name(100)]
    assert len(checkpoints(tmp_path)) == 5


def test_prune_of_nothing(tmp_path: Path) -> None:
    """A run without checkpoints is no error."""
    assert prune(tmp_path, Keep()).removed == ()


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails: nothing is raised, a line tells it, the newest two are good."""
    for at in range(60):
        run = tmp_path / str(at)
        for step in (100, 200, 300, 400):
            saved(run, step)
        with monkeypatch.context() as patch:
            faults = Faults(patch, lambda: OSError(errno.EIO, os.strerror(errno.EIO)), at)
            done = prune(run, Keep(last=2))
            faults.enabled = False
            if not faults.struck:
                break
        assert len(done.failures) == 1
        assert "Input/output error" in done.failures[0]
        choice = choose(run)
        assert choice.chosen == run / step_name(400)
        assert not choice.refused
        assert run / step_name(300) in choice.older
    else:
        raise AssertionError("never without a fault")
    assert at > 10
    assert not done.failures


def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in any call: every name that is left is that of a whole checkpoint."""
    for at in range(60):
        run = tmp_path / str(at)
        for step in (100, 200, 300):
            saved(run, step)
        with monkeypatch.context() as patch:
            death = Death(patch, at)
            with suppress(Killed):
                prune(run, Keep(last=2))
        if not death.struck:
            break
        for path in checkpoints(run):
            assert not choose(run).refused, path
        others = set(os.listdir(run)) - {path.name for path in checkpoints(run)}
        assert all(is_leftover(name) for name in others)
        assert [path.name for path in leftovers(run)] == sorted(others)
    assert at > 5


def test_the_step_just_saved_stays(tmp_path: Path) -> None:
    """Later steps that were copied in are neither counted nor removed."""
    for step in (100, 200, 300, 500, 600, 700):
        saved(tmp_path, step)
    done = prune(tmp_path, Keep(last=2), 300)
    assert [path.name for path in done.removed] == [step_name(100)]
    assert len(checkpoints(tmp_path)) == 5

"""Old checkpoints are removed by hand, and never the last good ones."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.lock import locked
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LockedError, ResumeError
from liontool.resume.pruning import thin_out
from liontool.resume.retention import Keep
from support.checkpoints import damaged, everything, saved


def _steps(paths: list[Path] | tuple[Path, ...]) -> list[int]:
    return [int(path.name[5:]) for path in paths]


def test_removed(tmp_path: Path) -> None:
    """What nothing wants is gone; what was done is told."""
    for step in range(100, 700, 100):
        saved(tmp_path, step, metric=abs(step - 200))
    done = thin_out(tmp_path, Keep(last=2, every=300, best=1))
    assert _steps(done.removed) == [100, 400]
    assert done.removed == done.unwanted
    assert _steps(done.kept) == [600, 500, 300, 200]
    assert _steps(checkpoints(tmp_path)) == [600, 500, 300, 200]
    assert done.size > 100
    assert done.failures == ()


def test_damaged_do_not_count(tmp_path: Path) -> None:
    """With the newest damaged the newest good ones stay, though sizes do not tell them apart."""
    for step in (100, 200, 300):
        saved(tmp_path, step)
    for step in (400, 500, 600):
        damaged(tmp_path, step)
    done = thin_out(tmp_path, Keep(last=2))
    assert _steps(done.removed) == [100]
    assert _steps(done.kept) == [300, 200]
    assert _steps([one.path for one in done.refused]) == [600, 500, 400]
    assert _steps(checkpoints(tmp_path)) == [600, 500, 400, 300, 200]


def test_nothing_good(tmp_path: Path) -> None:
    """Where nothing is good nothing is removed."""
    damaged(tmp_path, 100)
    with pytest.raises(ResumeError, match=r"no checkpoint in it is good \(step-0000000100: state"):
        thin_out(tmp_path, Keep())
    assert _steps(checkpoints(tmp_path)) == [100]


def test_no_metric(tmp_path: Path) -> None:
    """The best are asked for where nothing tells them."""
    saved(tmp_path, 100)
    with pytest.raises(ResumeError, match="no checkpoint has a metric, so none is the best"):
        thin_out(tmp_path, Keep(best=1))


def test_empty(tmp_path: Path) -> None:
    """A run without checkpoints is left as it is."""
    (tmp_path / "run.lock").touch()
    done = thin_out(tmp_path, Keep())
    assert (done.removed, done.kept) == ((), ())


def test_dry_run(tmp_path: Path) -> None:
    """A dry run says what would go, and touches nothing."""
    for step in (100, 200, 300):
        saved(tmp_path, step)
    before = everything(tmp_path)
    done = thin_out(tmp_path, Keep(last=2), dry_run=True)
    assert (_steps(done.unwanted), done.removed) == ([100], ())
    assert everything(tmp_path) == before
    assert done.to_dict() == {
        "schema": 1,
        "run": str(tmp_path),
        "unwanted": [step_name(100)],
        "removed": [],
        "kept": [step_name(300), step_name(200)],
        "damaged": [],
        "failures": [],
        "size": done.size,
        "dry_run": True,
        "locked_by": None,
    }


def test_busy(tmp_path: Path) -> None:
    """Nothing is removed while a run has the folder."""
    for step in (100, 200, 300):
        saved(tmp_path, step)
    with locked(tmp_path), pytest.raises(LockedError, match="this process trains in it already"):
        thin_out(tmp_path, Keep(last=2))
    assert len(checkpoints(tmp_path)) == 3


def test_one_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one does not go the next one does all the same."""
    real = SYSTEM.rename

    def refusing(old: Path, new: Path) -> None:
        if old.name == step_name(100):
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        real(old, new)

    for step in (100, 200, 300, 400):
        saved(tmp_path, step)
    monkeypatch.setattr(SYSTEM, "rename", refusing)
    done = thin_out(tmp_path, Keep(last=2))
    assert _steps(done.removed) == [200]
    assert done.failures == (f"{tmp_path / step_name(100)}: cannot be removed: Permission denied",)

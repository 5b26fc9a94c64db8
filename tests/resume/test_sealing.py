"""The COMMIT of a checkpoint that was converted or edited."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.checkpoint.run_folder.sealing import CommitSeal
from support.checkpoints import TENSORS, TIME, saved


def test_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lists the new bytes and says when they were written; the place in the run is the same."""
    folder = saved(tmp_path, 1200, metric=0.5)
    before = check(folder)
    names = [f"{folder.name}/{name}" for name in before.files]
    (folder / TENSORS).write_bytes(b"other tensors")
    monkeypatch.setattr(time, "time", lambda: TIME + 60)
    seal = CommitSeal(before, f"{folder.name}/")
    (folder / COMMIT).write_bytes(seal.made(tmp_path, names))
    after = check(folder)
    assert seal.name == f"{folder.name}/{COMMIT}"
    assert (after.step, after.epoch, after.metric) == (before.step, before.epoch, before.metric)
    assert (before.time, after.time) == (TIME, TIME + 60)
    assert after.files[TENSORS] != before.files[TENSORS]

"""What a start in a run's folder would find, without touching anything."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.run_folder.layout import FACTS, step_name
from liontool.checkpoint.run_folder.lock import locked
from liontool.errors import FormatError, ReadError
from liontool.resume.outlook import FRESH, NOTHING_GOOD, RESUME, outlook
from support.checkpoints import TIME, damaged, everything, run_facts, saved


def test_resume(tmp_path: Path) -> None:
    """The checkpoint, the refused ones, the older ones, what is set aside, and who is there."""
    for step in (100, 200):
        saved(tmp_path, step, metric=0.5)
    damaged(tmp_path, 300)
    damaged(tmp_path / "quarantine", 250)
    (tmp_path / ".12-0123abcd.liontool-tmp").mkdir()
    before = everything(tmp_path)
    found = outlook(tmp_path)
    assert everything(tmp_path) == before
    assert found.answer == RESUME
    assert found.to_dict() == {
        "schema": 1,
        "run": str(tmp_path),
        "answer": "resume",
        "checkpoint": {
            "name": step_name(200), "step": 200, "epoch": 2, "metric": 0.5, "time": TIME,
            "size": found.choice.commit.size if found.choice.commit else None,
        },
        "level": "exact",
        "reasons": [],
        "refused": [{
            "name": step_name(300),
            "reason": "state-0.safetensors is damaged: its bytes are not those that were committed",
        }],
        "older": [step_name(100)],
        "quarantined": [step_name(250)],
        "renamed": [],
        "leftovers": [".12-0123abcd.liontool-tmp"],
        "locked_by": None,
    }  # fmt: skip


def test_holder(tmp_path: Path) -> None:
    """While somebody trains there it says who, and is not kept out."""
    saved(tmp_path, 100)
    with locked(tmp_path):
        found = outlook(tmp_path)
    assert found.holder is not None
    assert json.loads(json.dumps(found.to_dict()))["locked_by"]["pid"] == found.holder.pid


def test_fresh(tmp_path: Path) -> None:
    """A folder in which nothing was saved is a fresh start."""
    found = outlook(tmp_path)
    assert (found.answer, found.level, found.to_dict()["checkpoint"]) == (FRESH, None, None)


@pytest.mark.parametrize("where", ["", "quarantine"])
def test_nothing_good(tmp_path: Path, where: str) -> None:
    """A folder in which nothing is good any more is none."""
    damaged(tmp_path / where, 100)
    assert outlook(tmp_path).answer == NOTHING_GOOD


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is an error, and is not made."""
    with pytest.raises(ReadError, match="nowhere: no such folder"):
        outlook(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("facts", "level", "reasons"),
    [
        ({}, "exact", ()),
        (
            {"level": "state-exact", "reasons": ["workers are not seeded"]},
            "state-exact",
            ("workers are not seeded",),
        ),
        ({"level": "state-exact"}, "state-exact", ()),
        ({"level": None, "reasons": 3, "versions": []}, "state-exact", ()),
        ({"versions": {"python": platform.python_version(), "no-such-thing": "1"}}, "exact", ()),
        ({"versions": {"torch": importlib.metadata.version("torch")}}, "exact", ()),
        (
            {"versions": {"liontool": "0", "torch": "0.0.1", "python": "2.7"}},
            "state-exact",
            (
                f"the version of python is {platform.python_version()}, and was 2.7",
                f"the version of torch is {importlib.metadata.version('torch')}, and was 0.0.1",
            ),
        ),
    ],
)
def test_level(tmp_path: Path, facts: dict[str, Any], level: str, reasons: tuple[str, ...]) -> None:
    """What was noted when it was saved, and what has changed here since."""
    saved(tmp_path, 100, files={FACTS: run_facts(**facts)})
    found = outlook(tmp_path)
    assert (found.level, found.reasons) == (level, reasons)


def test_facts_that_are_none(tmp_path: Path) -> None:
    """A run.json that was committed and is none is an error, with its path."""
    saved(tmp_path, 100, files={FACTS: b"no JSON"})
    with pytest.raises(FormatError, match=r"step-0000000100/run\.json: is not valid JSON"):
        outlook(tmp_path)

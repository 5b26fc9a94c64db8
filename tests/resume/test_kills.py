"""A run that is killed and restarted until it is done is, bit for bit, the one that never died."""

from __future__ import annotations

import shutil

import pytest

from support.crash_runs import short

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")


@pytest.mark.parametrize("workers", ["no loader workers", "two loader workers"])
def test_no_bit_differs_after_kills(workers: str) -> None:
    """15 kill -9, most of them in a save, with bits flipped after every third."""
    counts = short(f"kill -9, {workers}")
    assert counts["kills"] == 15
    assert counts["aimed at a save"] >= 7
    assert counts["states compared"] > 50
    assert counts["damaged checkpoints refused, named and moved away"] >= 3
    assert "differences" not in counts


@needs_strace
def test_a_save_killed_at_a_system_call_leaves_a_whole_checkpoint() -> None:
    """Killed before any call: the one before is there, or all of the new one."""
    counts = short("kill -9 at every system call of a save")
    assert counts["calls of a save killed"] > 25
    assert counts["the one before was there"]
    assert counts["the new one was there"]


@needs_strace
def test_a_run_killed_at_a_system_call_goes_on_exactly() -> None:
    """From the constructor, which finds a damaged checkpoint, to the last save."""
    counts = short("kill -9 at every system call of a run")
    assert counts["calls of a run killed"] > 5
    assert counts["states compared"] > 20

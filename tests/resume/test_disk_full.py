"""A save that the system refuses to write: nothing is lost, and the next one succeeds."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash import full_disk
from support.crash_part import Part
from support.crash_runs import short


def test_a_disk_that_is_full_at_any_byte_loses_nothing(memory: Path) -> None:
    """The error speaks of room, the older checkpoint stays, and with room the saver goes on."""
    part = Part("full at a byte")
    full_disk.every_byte(part, memory, stride=3)
    assert part.problems == []
    assert part.counts["bytes of a save"] > 500
    assert part.counts["left a hidden name behind"] == 0


def test_an_error_at_any_call_loses_nothing(memory: Path) -> None:
    """EIO, EDQUOT, ENOSPC, EROFS and short writes at every call, once and from there on."""
    part = Part("an error at a call")
    full_disk.every_call(part, memory)
    assert part.problems == []
    assert part.counts["system calls of a save"] > 40


def test_a_file_system_that_is_really_full_loses_nothing(memory: Path) -> None:
    """A tmpfs with any number of free pages."""
    part = Part("a full tmpfs", seed=6)
    try:
        with full_disk.tmpfs(memory / "mounted") as mounted:
            full_disk.full_tmpfs(part, mounted, tries=20)
    except PermissionError as error:
        pytest.skip(f"nothing can be mounted here: {error}")
    assert part.problems == []
    assert part.counts["said that it failed"] >= 10
    assert part.counts["saved all the same"]


def test_a_run_goes_on_while_the_disk_is_full() -> None:
    """It says so, saves again once there is room, and otherwise ends with the error."""
    counts = short("runs on a full disk")
    assert counts["runs on a disk that was full for a while"] == 4
    assert counts["runs on a disk that stayed full"] == 4

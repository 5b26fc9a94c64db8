"""A signal in any phase: the run saves, ends with 75 or 130, and goes on exactly."""

from __future__ import annotations

from support.crash_runs import short


def test_a_signal_ends_a_run_with_a_save() -> None:
    """In constructor, data, step, validation and save; to the process and to its group."""
    counts = short("signals")
    assert counts["signals"] >= 9
    assert counts["ended with 75"] >= 3
    assert counts["ended with 130"] >= 1
    assert counts["states compared"] > 50

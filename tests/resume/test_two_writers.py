"""Two processes that want one run, and one that wants the run of a dead one."""

from __future__ import annotations

from support.crash_runs import short


def test_exactly_one_of_two_gets_the_run() -> None:
    """The other one names it; and what a dead run left, its workers too, keeps nobody out."""
    counts = short("two writers and stale locks")
    assert counts["exactly one won, and the other named it"] == 10
    assert counts["started while workers of the dead run lived"] >= 2
    assert counts["longest start, ms"] < 10_000

"""`bars`: numbers as little bars."""

from __future__ import annotations

from liontool.cli.bars import bars


def test_one_line() -> None:
    """Each value has a bar of its height; one that is there can be seen, a gap is a gap."""
    assert bars([0, 1, None, 4, 8]) == ["▁▁ ▄█"]


def test_several_lines() -> None:
    """The lines stack up, the highest first, without spaces at their ends."""
    assert bars([1, 8, 16, 0], 2) == ["  █", "▁██▁"]


def test_a_given_top() -> None:
    """Several rows of bars can have one scale."""
    assert bars([1, 2], top=4.0) == ["▂▄"]


def test_nothing_but_zeros() -> None:
    """Zeros alone are a line at the bottom."""
    assert bars([0, 0, 0], 2) == ["", "▁▁▁"]


def test_without_blocks() -> None:
    """A terminal that knows no blocks gets letters that everybody has."""
    (line,) = bars([0, 4, 8], blocks=False)
    assert line.isascii()
    assert line[2] == "#"

"""Summaries of values, put together."""

from __future__ import annotations

import math

import pytest

from liontool.measure.summary import ValueSummary, merged

ONES = ValueSummary(
    count=4, norm=2.0, rms=1.0, mean=1.0, min=1.0, max=1.0, lowest_exponent=0, exponents=(4,)
)
ODD = ValueSummary(
    count=4, nan=1, infinite=1, zeros=1, norm=8.0, rms=8 / math.sqrt(2), mean=-4.0, min=-8.0,
    max=0.0, lowest_exponent=3, exponents=(1,),
)  # fmt: skip


def test_parts_add_up() -> None:
    """Counts add, norms by their squares, means by how many values are finite."""
    whole = merged([ONES, ODD])
    assert (whole.count, whole.nan, whole.infinite, whole.zeros, whole.finite) == (8, 1, 1, 1, 6)
    assert whole.norm == pytest.approx(math.sqrt(68))
    assert whole.rms == pytest.approx(math.sqrt(68 / 6))
    assert whole.mean == pytest.approx((4 - 8) / 6)
    assert (whole.min, whole.max) == (-8.0, 1.0)
    assert (whole.lowest_exponent, whole.exponents) == (0, (4, 0, 0, 1))
    assert whole.zero_share == pytest.approx(1 / 6)


def test_nothing_has_no_mean() -> None:
    """Without values, or without finite ones, there is nothing to average."""
    assert merged([]) == ValueSummary()
    assert merged([ValueSummary(count=2, nan=2)]) == ValueSummary(count=2, nan=2)
    assert ValueSummary().zero_share is None


def test_large_norms_do_not_overflow() -> None:
    """Norms are put together without squaring them."""
    assert merged([ValueSummary(count=1, norm=3e200), ValueSummary(count=1, norm=4e200)]).norm == (
        pytest.approx(5e200)
    )

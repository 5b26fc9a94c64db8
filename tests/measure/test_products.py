"""Sums by BLAS, against exact ones."""

from __future__ import annotations

import math

import numpy as np
import pytest

from liontool.measure.products import dot, total


@pytest.mark.parametrize("count", [0, 1, 8191, 8192, 8193, 30_000])
def test_sums_of_float64(count: int) -> None:
    """Whole rows and the rest add up."""
    first, second = np.random.default_rng(0).standard_normal((2, count))
    size = 1e-13 * max(count, 1)
    assert total(first) == pytest.approx(math.fsum(first), rel=0, abs=size)
    assert dot(first, second) == pytest.approx(math.fsum(first * second), rel=0, abs=size)


def test_rows_of_float32_add_up_in_double() -> None:
    """A long sum of float32 has the error of one row."""
    numbers = np.full(1 << 20, 0.1, np.float32)
    assert total(numbers) == pytest.approx(float(numbers[0]) * len(numbers), rel=1e-5)
    assert dot(numbers, numbers) == pytest.approx(float(numbers[0]) ** 2 * len(numbers), rel=1e-5)


def test_what_is_not_finite_shows() -> None:
    """NaN and infinity come through."""
    numbers = np.ones(10_000)
    numbers[17] = math.inf
    assert total(numbers) == math.inf
    numbers[9_000] = math.nan
    assert math.isnan(dot(numbers, numbers))

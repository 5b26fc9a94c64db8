"""Which strides are those of a tensor without gaps."""

from __future__ import annotations

import pytest

from liontool.resume.strides import is_dense, same_layout


@pytest.mark.parametrize(
    ("shape", "stride", "dense"),
    [
        ((), (), True),
        ((2, 3), (3, 1), True),
        ((2, 3), (1, 2), True),
        ((2, 3, 2, 2), (12, 1, 6, 3), True),
        ((1, 3), (7, 1), True),
        ((3, 1, 2), (2, 0, 1), True),
        ((2, 3), (4, 1), False),
        ((2, 3), (0, 1), False),
        ((2, 2), (1, 1), False),
        ((3,), (2,), False),
        ((0, 3), (3, 1), False),
        ((2, 3), (3,), False),
    ],
)
def test_dense_is_without_gaps(
    shape: tuple[int, ...], stride: tuple[int, ...], dense: bool
) -> None:
    """A dimension of one element may have any stride; a tensor without elements has none."""
    assert is_dense(shape, stride) is dense


def test_a_dimension_of_one_element_says_nothing() -> None:
    """torch writes any stride there."""
    assert same_layout((1, 3), (7, 1), (3, 1))
    assert not same_layout((2, 3), (3, 1), (1, 2))

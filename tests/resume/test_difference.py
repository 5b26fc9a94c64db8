"""Two states are the same when every bit of them is."""

from __future__ import annotations

import pytest
import torch

from liontool.resume.difference import difference


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, True), (0.0, -0.0), (1, 1.0), ([1], (1,)), (torch.ones(2), torch.ones(2).double())],
    ids=repr,
)
def test_types_and_signs_count(one: object, other: object) -> None:
    """What == calls equal may still be another value."""
    assert difference({"a": {"b": one}}, {"a": {"b": other}}) == "a.b"


def test_the_same_is_the_same() -> None:
    """A NaN is the same as a NaN."""
    assert difference({"a": [float("nan")]}, {"a": [float("nan")]}) is None

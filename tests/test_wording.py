"""Numbers and values as people read them."""

from __future__ import annotations

from typing import Any

import pytest

from liontool import wording


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (None, "-"),
        (True, "yes"),
        (False, "no"),
        (7, "7"),
        (0.0003, "0.0003"),
        (1e-8, "1e-08"),
        (0.0001 / 3, "3.33333e-05"),
        (float("nan"), "nan"),
        ((0.9, 0.999), "0.9, 0.999"),
        ([], "-"),
        ({"a": 1.5, "b": [1, 2]}, "a 1.5, b 1, 2"),
        ("\x1b", r"\x1b"),
        ("x" * 300, "x" * 200 + "..."),
        (range(40), ", ".join(map(str, range(32))) + ", ..."),
        ({"\n": "\r"}, r"\n \r"),
        ([["x" * 100] * 20] * 20, ", ".join(["x" * 100] * 20)[:1000] + "..."),
    ],
)
def test_value(item: Any, text: str) -> None:
    """Values are short, recognisable and safe."""
    assert wording.value(item) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (81_234_567, "81.2 MB"),
        (999_960, "1.00 MB"),
        (128_000_000_000, "128 GB"),
        (5 * 10**18, "5000 PB"),
    ],
)
def test_size(number: int, text: str) -> None:
    """Three digits and a unit of thousands."""
    assert wording.size(number) == text


def test_rates() -> None:
    """A rate that all groups share is told once."""
    assert wording.rates([0.1, 0.1, 0.1]) == "0.1"
    assert wording.rates([0.1, 0.2]) == "0.1, 0.2"
    assert wording.rates(0.1) == "0.1"
    assert wording.rates(None) == "-"


def test_share() -> None:
    """Small shares keep two digits."""
    assert [wording.share(part) for part in (None, 0.0, 0.000312, 0.5, 1.0)] == [
        "-",
        "0 %",
        "0.031 %",
        "50 %",
        "100 %",
    ]


def test_count() -> None:
    """Thousands are set apart, and one is not many."""
    assert wording.count(1234567) == "1,234,567"
    assert wording.count(1, "tensor") == "1 tensor"
    assert wording.count(0, "tensor") == "0 tensors"
    assert wording.count(None) == "-"


def test_position() -> None:
    """The length is shown where it is known."""
    assert wording.position(500, 2000.0) == "500 of 2,000"
    assert wording.position(500, None) == "500"
    assert wording.position(None, None) == "-"


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        (3000, 2000, ": 33 % less"),
        (1000, 1500, ": 50 % more"),
        (1000, 1000, "after"),
        (0, 0, "after"),
    ],
)
def test_saving(before: int, after: int, end: str) -> None:
    """The change is a share of what was there before."""
    assert wording.saving(before, after).endswith(end)

"""Two trees are walked in step, and every difference has its place."""

from __future__ import annotations

import math
from typing import Any

import pytest

from liontool.checkpoint.document import Opaque
from liontool.inspect import equality
from liontool.inspect.equality import MOST, differences


def told(found: Any, wanted: Any) -> list[str]:
    return [f"{one.where}: {one.text}" for one in differences(found, wanted)]


def made(*arguments: Any, name: str = "m.C", **state: Any) -> Opaque:
    return Opaque(name, arguments, state)


@pytest.mark.parametrize(
    ("found", "wanted", "text"),
    [
        (1.0, math.nextafter(1.0, 2), ": is 1.0, and 1.0000000000000002 in the source"),
        (0.0, -0.0, ": is 0.0, and -0.0 in the source"),
        (1, 1.0, ": is 1, and 1.0 in the source"),
        ([1], (1,), ": is a list of 1, and a tuple of 1 in the source"),
        ({1: 2}, {True: 2}, "True: is in the source and not here"),
        (made(1), made(2), "m.C().0: is 1, and 2 in the source"),
        (made(a=1), made(a=2), "m.C.a: is 1, and 2 in the source"),
        (made(), made(name="m.D"), ": is <m.C>, and <m.D> in the source"),
        ({made(): 1}, {made(): 2}, "<m.C>: is 1, and 2 in the source"),
        ({made(): 1}, {}, "<m.C>: is here and not in the source"),
        (2**5000, 2, ": is an integer of 5,001 bits, and 2 in the source"),
    ],
)
def test_differences(found: Any, wanted: Any, text: str) -> None:
    """Values, kinds, keys, and objects by class, arguments and state."""
    assert text in told(found, wanted)
    assert not told(found, found)


def test_nan() -> None:
    """NaN is as it was."""
    assert not told([math.nan], [math.nan])


def test_most() -> None:
    """Trees that have nothing in common end after so many differences."""
    assert len(told(list(range(500)), list(range(1, 501)))) == MOST


def test_shared_values() -> None:
    """Lists that share lists stand for billions, and cycles for more: each is walked once."""
    trees: list[Any] = []
    for _ in range(2):
        wide: list[Any] = [0]
        for _ in range(60):
            wide = [wide, wide]
        wide.append(wide)
        trees.append(wide)
    assert not told(*trees)
    rings: list[Any] = [[0], [0, [0]]]
    rings[0].append(rings[0])
    rings[1][1].append(rings[1])  # the same without end, in two steps instead of one
    assert not told(*rings)


def test_rings_of_two_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps as there are values, not as there are pairs of them."""
    turns = 0
    inside = equality._Walk._inside

    def counted(walk: Any, *values: Any) -> Any:
        nonlocal turns
        turns += 1
        return inside(walk, *values)

    monkeypatch.setattr(equality._Walk, "_inside", counted)
    assert not told(ring(101), ring(103))
    assert turns <= 101 + 103


def ring(length: int) -> list[Any]:
    lists: list[list[Any]] = [[] for _ in range(length)]
    for i, one in enumerate(lists):
        one.append(lists[i - 1])
    return lists[0]

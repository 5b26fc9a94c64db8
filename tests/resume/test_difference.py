"""Two states are the same when every bit of them is."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from liontool.resume.difference import difference

_NUMBER = torch.tensor([1 + 2j])
_BITS = torch.tensor([0x7FC00001], dtype=torch.int32).view(torch.float32)


def _grid(*strides: int) -> torch.Tensor:
    return torch.arange(6.0).view(2, 3).as_strided((2, 3), strides or (3, 1))


def _type_name(value: Any) -> str:
    """Not its repr: sets have no order, and two processes must collect the same tests."""
    return type(value).__name__


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True),
        (1, 1.0),
        (0.0, -0.0),
        (0j, -0j),
        (1, np.int64(1)),
        (np.float32(1), np.float64(1)),
        ("a", b"a"),
        ([1], (1,)),
        ([1], [1, 1]),
        ((2,), torch.Size([2])),
        ({1}, {1.0}),
        ({0.0}, {-0.0}),
        ({(1,)}, {(True,)}),
        ({1}, frozenset({1})),
        (frozenset({frozenset({0.0})}), frozenset({frozenset({-0.0})})),
        (deque([1], 2), deque([1], 3)),
        (defaultdict(list), defaultdict(int)),
        ({"x": 1}, OrderedDict(x=1)),
        ({"x": 1}, Counter(x=1)),
        (torch.float32, torch.float64),
        (math.sin, math.cos),
        (torch.ones(2), torch.ones(2).double()),
        (torch.ones(2), torch.ones(2, 1)),
        (torch.ones(2), Parameter(torch.ones(2), requires_grad=False)),
        (torch.ones(2), torch.ones(2, requires_grad=True)),
        (torch.zeros(1), -torch.zeros(1)),
        (_BITS, torch.tensor([math.nan])),
        (torch.tensor([1 + 2j]), torch.tensor([1 + 2j]).conj()),
        (_NUMBER, _NUMBER.conj()),
        (_NUMBER.imag, _NUMBER.conj().imag),
        (_grid(), _grid().t().contiguous().t()),
        (np.ones(2), np.ones(2, np.float32)),
        (np.ones(2), np.ones((2, 1))),
        (np.zeros(1), -np.zeros(1)),
        (np.ones(1), torch.ones(1).double()),
    ],
    ids=_type_name,
)
def test_type_and_bits_count(one: Any, other: Any) -> None:
    """What == calls equal may still be another value; the path says where."""
    assert difference({"a": {"b": [0, one]}}, {"a": {"b": [0, other]}}) == "a.b.1"
    assert difference({"a": {"b": [0, other]}}, {"a": {"b": [0, one]}}) == "a.b.1"


@pytest.mark.parametrize(
    ("one", "other", "path"),
    [
        ({"x": 1}, {}, "a.x"),
        ({}, {"x": 1}, "a.x"),
        ({1: 0}, {"1": 0}, "a.1"),
        ({1: 0}, {True: 0}, "a.1"),
        ({0.0: 1}, {-0.0: 1}, "a.0.0"),
        ({math.nan: 1}, {math.nan: 2}, "a.nan"),
        (OrderedDict(x=1, y=2), OrderedDict(y=2, x=1), "a.x"),
        (Counter(x=1), Counter(x=2), "a.x"),
        (1, 2, "a"),
    ],
    ids=str,
)
def test_the_path_leads_to_the_first_difference(one: Any, other: Any, path: str) -> None:
    """Of keys, it is the one that only one has, or the one whose turn it is not."""
    assert difference({"a": one}, {"a": other}) == path


def test_the_attribute_of_a_state_dict_counts() -> None:
    """A module reads the versions in it when it is loaded."""
    one, other = torch.nn.Linear(1, 1).state_dict(), torch.nn.Linear(1, 1).state_dict()
    other.update(one)
    assert difference(one, other) is None
    other._metadata[""]["version"] = 9
    assert difference({"model": one}, {"model": other}) == "model._metadata..version"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (math.nan, -math.nan),
        ({math.nan}, {float("nan")}),
        ({math.nan: 1, (2, math.nan): 3}, {float("nan"): 1, (2, float("nan")): 3}),
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}),
        ({1, "a", (2, 3)}, {(2, 3), "a", 1}),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (torch.tensor([1 + 2j]).conj(), torch.tensor([1 - 2j])),
        (torch.tensor([1 + 2j]).conj().imag, torch.tensor([-2.0])),
        (torch.arange(3).expand(2, 3), torch.arange(3).repeat(2, 1)),
        (torch.arange(6).view(2, 3)[:, :2], torch.tensor([[0, 1], [3, 4]])),
        (torch.ones(1, 3).as_strided((1, 3), (7, 1)), torch.ones(1, 3)),
        (torch.empty(0, 3), torch.empty(3, 0).t()),
        (np.asfortranarray(np.ones((2, 3))), np.ones((2, 3))),
        (torch.tensor([1], dtype=torch.uint16), torch.tensor([1], dtype=torch.uint16)),
        (torch.tensor([1.0]).to(torch.float8_e5m2), torch.tensor([1.0]).to(torch.float8_e5m2)),
    ],
    ids=_type_name,
)
def test_the_same_is_the_same(one: Any, other: Any) -> None:
    """NaN is NaN, dicts and sets have no order, and gaps between elements are no elements."""
    assert difference({"a": [one]}, {"a": [other]}) is None


def test_a_state_that_is_no_state_is_no_crash() -> None:
    """The outermost value has a name too."""
    assert difference({}, []) == "state"


def test_memory_that_is_the_same_is_not_read() -> None:
    """Comparing a state with what was encoded of it costs nothing."""
    big = torch.empty(1 << 40, device="meta")
    assert difference([big], [big.view(-1)]) is None

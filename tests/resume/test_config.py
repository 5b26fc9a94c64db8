"""A configuration is compared value by value, by what it says and not by what holds it."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from liontool.errors import StateTypeError
from liontool.resume.config import changes, config_tree


@dataclasses.dataclass
class Data:
    batch_size: int = 8
    root: Path = Path("/data")


def _changes(old: Any, new: Any) -> list[tuple[str, str]]:
    return list(changes(json.loads(json.dumps(config_tree(old))), config_tree(new)))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": {"b": (1, 2)}}, {"a": {"b": [1, 2]}}),
        ({"a": 1}, argparse.Namespace(a=1.0)),
        ({"data": {"batch_size": 8, "root": "/data"}}, {"data": Data()}),
        ({"a": float("nan"), "b": 10**400}, {"a": float("nan"), "b": 10**400}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        (Data(), {"batch_size": 8, "root": "/data"}),
        ({}, {}),
    ],
)
def test_the_same(old: Any, new: Any) -> None:
    """Kinds of containers, and the order of keys, are no values."""
    assert _changes(old, new) == []


@pytest.mark.parametrize(
    ("old", "new", "path", "words"),
    [
        ({"a": {"b": 1}}, {"a": {"b": 2}}, "a.b", "is 2 now, and was 1 in the checkpoint's"),
        ({"a": [1, 2]}, {"a": [1, 3]}, "a.1", "is 3 now, and was 2 in the checkpoint's"),
        ({"a": [1]}, {"a": [1, 3]}, "a", "is [1, 3] now, and was [1] in the checkpoint's"),
        ({}, {"a": None}, "a", "is None now, and was not in the checkpoint's"),
        ({"a": None}, {}, "a", "is missing now, and was None in the checkpoint's"),
        ({"a": True}, {"a": 1}, "a", "is 1 now, and was True in the checkpoint's"),
        ({"a": "1"}, {"a": 1}, "a", "is 1 now, and was '1' in the checkpoint's"),
        ({1: {"x": 2}}, {1: {"x": 3}}, "1.x", "is 3 now, and was 2 in the checkpoint's"),
    ],
)
def test_a_change(old: Any, new: Any, path: str, words: str) -> None:
    """It is told by its path, with what it was and is."""
    assert _changes(old, new) == [(path, words)]


def test_no_configuration() -> None:
    """None is none."""
    assert config_tree(None) is None


@pytest.mark.parametrize("config", [3, "text", [1]])
def test_what_is_no_configuration(config: Any) -> None:
    """Its values need names."""
    match = f"^config is a {type(config).__name__}; give a dict, a dataclass or a Namespace$"
    with pytest.raises(StateTypeError, match=match):
        config_tree(config)


def test_a_value_that_cannot_be_kept() -> None:
    """Its path and its type are named."""
    with pytest.raises(StateTypeError, match=r"^config\.a\.0: .*object"):
        config_tree({"a": [object()]})

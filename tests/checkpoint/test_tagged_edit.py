"""Edits of a tagged tree, at the paths of what it decodes to."""

from __future__ import annotations

import json
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import pytest

from liontool.checkpoint.document import Delete, Edit, Insert, Place, Rename, Replace
from liontool.checkpoint.tagged_edit import edited
from liontool.checkpoint.tagged_tree import Json, KeyPath, decode, encode, unknown


class _Leaves:
    """Knows a complex number of its own, to see which nodes are made anew."""

    def __init__(self) -> None:
        self.encoded: list[KeyPath] = []

    def encode(self, value: object, path: KeyPath) -> Json | None:
        self.encoded.append(path)
        return {"$new": str(value)}

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        if kind == "$new":
            return payload
        raise unknown(kind, path)


def _at(*path: Any) -> Place:
    return Place("state-0.json", path)


def _state() -> dict[str, Any]:
    return {
        "optimizer": {
            "state": {0: {"exp_avg": 1, "exp_avg_sq": 2}, 1: {"exp_avg": 3, "exp_avg_sq": 4}},
            "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0, 1]}],
        },
        "model": OrderedDict(weight=1.5),
        "counts": Counter("aab"),
        "lists": defaultdict(list, {"x": [1]}),
        "last": deque([1, 2, 3], 3),
    }


_EDITS: dict[str, tuple[Edit, Any]] = {
    "delete in a dict of int keys": (
        Delete(_at("optimizer", "state", 0, "exp_avg_sq")),
        lambda s: s["optimizer"]["state"][0].pop("exp_avg_sq"),
    ),
    "delete an int key": (
        Delete(_at("optimizer", "state", 1)),
        lambda s: s["optimizer"]["state"].pop(1),
    ),
    "replace in a list": (
        Replace(_at("optimizer", "param_groups", 0, "lr"), 0.3),
        lambda s: s["optimizer"]["param_groups"][0].update(lr=0.3),
    ),
    "replace by a tuple": (
        Replace(_at("optimizer", "param_groups", 0, "betas"), (0.95, 0.98)),
        lambda s: s["optimizer"]["param_groups"][0].update(betas=(0.95, 0.98)),
    ),
    "replace in a tuple": (
        Replace(_at("optimizer", "param_groups", 0, "betas", 1), 0.98),
        lambda s: s["optimizer"]["param_groups"][0].update(betas=(0.9, 0.98)),
    ),
    "insert": (
        Insert(_at("optimizer", "param_groups", 0, "fused"), None),
        lambda s: s["optimizer"]["param_groups"][0].update(fused=None),
    ),
    "insert an int key": (
        Insert(_at("optimizer", "state", 7), {}),
        lambda s: s["optimizer"]["state"].update({7: {}}),
    ),
    "in an OrderedDict": (
        Replace(_at("model", "weight"), 2.5),
        lambda s: s["model"].update(weight=2.5),
    ),
    "in a Counter": (Delete(_at("counts", "a")), lambda s: s["counts"].pop("a")),
    "in a defaultdict": (
        Insert(_at("lists", "y"), []),
        lambda s: s["lists"].update(y=[]),
    ),
    "in a deque": (
        Delete(_at("last", 0)),
        lambda s: s["last"].popleft(),
    ),
}


@pytest.mark.parametrize("case", _EDITS)
def test_an_edit_is_made_where_it_says(case: str) -> None:
    """The tree decodes to what the same change of the state gives; the old tree is left alone."""
    leaves = _Leaves()
    edit, change = _EDITS[case]
    tree = encode(_state(), leaves)
    before = json.dumps(tree)
    expected = _state()
    change(expected)
    assert decode(edited(tree, [edit], leaves), leaves) == expected
    assert json.dumps(tree) == before


def test_a_renamed_entry_keeps_its_turn() -> None:
    """A key of another type changes the kind of the node, not the order."""
    leaves = _Leaves()
    tree = encode({"a": 1, "b": 2, "c": 3}, leaves)
    made = decode(edited(tree, [Rename(_at("b"), 5)], leaves), leaves)
    assert list(made.items()) == [("a", 1), (5, 2), ("c", 3)]


def test_below_a_renamed_entry_edits_have_old_paths() -> None:
    """All Places are those before the first edit."""
    leaves = _Leaves()
    tree = encode({0: {"x": 1}, 1: {"x": 2}}, leaves)
    edits = [Rename(_at(1), 0), Delete(_at(0)), Replace(_at(1, "x"), 9)]
    assert decode(edited(tree, edits, leaves), leaves) == {0: {"x": 9}}


def test_what_no_edit_names_is_the_same_object() -> None:
    """It is written byte for byte as it was, keys that the reader shows differently too."""
    leaves = _Leaves()
    tree = {"$dict": [[{"$new": "odd"}, [1]], ["a", {"$what": 1}]], "b": [1]}
    tree = {"x": {"$dict": tree["$dict"]}, "b": tree["b"]}
    made = edited(tree, [Insert(_at("x", 3), 4)], leaves)
    assert made["b"] is tree["b"]
    assert made["x"]["$dict"][:2] == tree["x"]["$dict"]
    assert made["x"]["$dict"][2] == [3, 4]


def test_new_values_are_encoded_with_their_path() -> None:
    """Tensors get the name of the place where they go."""
    leaves = _Leaves()
    edited(encode(_state(), leaves), [Insert(_at("optimizer", "state", 0, "m"), object())], leaves)
    assert leaves.encoded == [("optimizer", "state", 0, "m")]


def test_twenty_thousand_edits_take_no_time_each() -> None:
    """Edits of one container are made together."""
    leaves = _Leaves()
    tree = encode({"state": {i: {"a": 1, "b": 2} for i in range(20_000)}}, leaves)
    edits = [Delete(_at("state", i, "b")) for i in range(20_000)]
    made = decode(edited(tree, edits, leaves), leaves)
    assert made == {"state": {i: {"a": 1} for i in range(20_000)}}


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (Delete(_at("optimizer", "nothing")), r"there is nothing at 'optimizer\.nothing'"),
        (Delete(_at("last", 7)), r"there is nothing at 'last\.7'"),
        (Delete(_at("optimizer", "param_groups", 0, "lr", 1)), "no mapping or sequence at"),
        (Rename(_at("counts"), "last"), "two entries would have one key"),
        (Insert(_at("optimizer", "state", 0), {}), "two entries would have one key"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_edit_that_does_not_fit_is_an_error(edit: Edit, message: str) -> None:
    """Nothing is changed by guessing."""
    leaves = _Leaves()
    with pytest.raises(ValueError, match=message):
        edited(encode(_state(), leaves), [edit], leaves)

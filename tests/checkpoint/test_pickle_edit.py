"""Edits of pickles, and new values in them: what changes, what stays, and who shares what."""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.document import (
    Computed,
    Delete,
    Edit,
    Insert,
    Key,
    Opaque,
    Place,
    Rename,
    Replace,
    Span,
    Storage,
    Stored,
    TensorRef,
    tensors,
)
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_encode import NewStorage, encode, storage_id
from liontool.checkpoint.formats.pickle_parse import parse
from liontool.checkpoint.formats.pickle_tree import Tree, collect_storages
from liontool.errors import LayoutError, LimitError
from support.pickles import Storages, data_of, tree_of


def at(*path: Key) -> Place:
    return Place("", path)


def written(
    tree: Tree,
    edits: Sequence[Edit],
    new_storage: NewStorage | None = None,
    protocol: int = 2,
) -> bytes:
    """The edited pickle."""
    with tree.edited(edits, new_storage) as root:
        return emit(root, protocol)


def edited(value: object, *edits: Edit, protocol: int = 2) -> Any:
    """The object that the edited pickle of `value` loads as."""
    data = pickle.dumps(value, protocol)
    tree = tree_of(data)
    made = written(tree, edits, protocol=protocol)
    assert emit(tree.root, protocol) == emit(parse(data, where="x")[0], protocol)
    return pickle.loads(made)


@pytest.mark.parametrize("protocol", range(2, 6))
@pytest.mark.parametrize(
    ("value", "edits", "expected"),
    [
        ({"a": 1, "b": 2}, [Delete(at("a"))], {"b": 2}),
        ({"a": 1}, [Delete(at("a"))], {}),
        ({"a": 1, "b": 2}, [Delete(at("a")), Delete(at("b"))], {}),
        ({"a": 1, "b": 2}, [Replace(at("a"), [1, {"x": (2, b"y")}])], None),
        ({"a": 1}, [Insert(at("b"), None)], {"a": 1, "b": None}),
        ({}, [Insert(at("b"), 1.5), Insert(at("c"), -3)], {"b": 1.5, "c": -3}),
        ([1, 2, 3], [Delete(at(1)), Replace(at(2), "x")], [1, "x"]),
        ((1, 2, 3), [Delete(at(1))], (1, 3)),
        ((1, 2, 3), [Delete(at(0)), Delete(at(1)), Delete(at(2))], ()),
        ((1, 2, 3, 4), [Replace(at(3), 5)], (1, 2, 3, 5)),
        (((1, 2), 3), [Replace(at(0, 1), 7)], ((1, 7), 3)),
        (collections.Counter("ab"), [Delete(at("a"))], collections.Counter("b")),
        (collections.deque([1, 2]), [Replace(at(0), 5)], collections.deque([5, 2])),
        ({i: i for i in range(1500)}, [Delete(at(i)) for i in range(1499)], {1499: 1499}),
    ],
)
def test_edits(protocol: int, value: object, edits: list[Edit], expected: object) -> None:
    """Entries go, change and come, in whatever spelling of the container."""
    if expected is None:
        expected = {"a": [1, {"x": (2, b"y")}], "b": 2}
    made = edited(value, *edits, protocol=protocol)
    assert made == expected
    assert type(made) is type(value)


def test_order_and_position() -> None:
    """A replaced entry keeps its position, an inserted one comes last, before later attributes."""
    value = collections.OrderedDict(a=1, b=2)
    value._metadata = {"v": 1}  # type: ignore[attr-defined]
    made = edited(value, Replace(at("a"), 5), Insert(at("c"), 3))
    assert list(made.items()) == [("a", 5), ("b", 2), ("c", 3)]
    assert made._metadata == {"v": 1}


def test_default_dict_keeps_its_factory() -> None:
    """Arguments of the constructor that are no entries stay."""
    made = edited(collections.defaultdict(list, {1: [2]}), Insert(at(2), [3]))
    assert made == {1: [2], 2: [3]}
    assert made.default_factory is list


def test_first_occurrence_deleted() -> None:
    """What others share with a deleted entry is made where it is used first now."""
    shared = {"deep": [1, 2]}
    made = edited({"a": [shared], "b": shared, "c": [shared["deep"]]}, Delete(at("a")))
    assert made == {"b": shared, "c": [[1, 2]]}
    assert made["b"]["deep"] is made["c"][0]


def test_first_occurrence_of_recursive_objects_deleted() -> None:
    """Lists and tuples that contain themselves survive the loss of where they were made."""
    inner: list[Any] = []
    loop = (inner, 1)
    inner.append(loop)
    made = edited({"a": inner, "b": loop, "c": inner}, Delete(at("a")))
    assert made["b"][0] is made["c"]
    assert made["c"][0] is made["b"]
    deep: Any = edited({"a": [loop], "b": (1, 2, 3, loop)}, Delete(at("a")), protocol=4)
    assert deep["b"][3][0][0] is deep["b"][3]


def test_recursive_tuple_is_edited() -> None:
    """A tuple that contains itself keeps doing so when an item of it changes."""
    inner: list[Any] = []
    loop = (inner, 1)
    inner.append(loop)
    made = edited({"x": loop}, Replace(at("x", 1), 2))
    assert made["x"][1] == 2
    assert made["x"][0][0] is made["x"]


def test_edit_under_an_alias() -> None:
    """A shared dict that is edited by one path changes for all, and is still shared."""
    shared = {"lr": 1.0, "eps": 2.0}
    made = edited([shared, {"x": shared}], Delete(at(1, "x", "eps")), Replace(at(0, "lr"), 0.5))
    assert made == [{"lr": 0.5}, {"x": {"lr": 0.5}}]
    assert made[0] is made[1]["x"]


def test_tuple_put_right_into_itself() -> None:
    """Python has no such tuple; writing one ends in an error."""
    tree = tree_of(pickle.dumps([(1, 2)], 2))
    with pytest.raises(LimitError, match="too tangled to be written"):
        written(tree, [Replace(at(0, 0), tree.value[0])])


def test_replace_changes_one_slot_only() -> None:
    """Aliases of the old value keep it."""
    shared = [1]
    assert edited([shared, shared], Replace(at(0), 2)) == [2, [1]]


def test_views_as_values() -> None:
    """A view of the tree put somewhere else is an alias there, even from inside of a new list."""
    tree = tree_of(pickle.dumps({"a": [1], "b": (2, [3]), "c": 0}, 2))
    edits = [Replace(at("c"), [tree.value["a"]]), Insert(at("d"), tree.value["b"])]
    made = pickle.loads(written(tree, edits))
    assert made == {"a": [1], "b": (2, [3]), "c": [[1]], "d": (2, [3])}
    assert made["c"][0] is made["a"]
    assert made["b"] is made["d"]


def test_view_of_an_edited_container() -> None:
    """A view stands for its container as it is after all edits."""
    tree = tree_of(pickle.dumps({"a": {"x": 1}}, 2))
    edits = [Insert(at("b"), tree.value["a"]), Replace(at("a", "x"), 2)]
    made = pickle.loads(written(tree, edits))
    assert made["b"] == {"x": 2}
    assert made["a"] is made["b"]


def test_dict_put_into_itself() -> None:
    """A view put below itself makes a cycle."""
    tree = tree_of(pickle.dumps({"a": {}}, 2))
    made = pickle.loads(written(tree, [Insert(at("a", "me"), tree.value["a"])]))
    assert made["a"]["me"] is made["a"]


def test_loop_through_a_shared_list() -> None:
    """A container put into a list that it shares with others makes a loop for all of them."""
    shared = [1, 2]
    tree = tree_of(pickle.dumps({"a": shared, "b": [shared, (shared, shared)]}, 2))
    edits = [Replace(at("b", 0, 0), tree.value["b"]), Delete(at("a"))]
    made = pickle.loads(written(tree, edits))
    assert made["b"][0][0] is made["b"]
    assert made["b"][1][0] is made["b"][1][1] is made["b"][0]


class Thing:
    """An object with state."""


def test_edit_inside_an_opaque_object() -> None:
    """A path leads into an object by its class, to its attributes."""
    thing = Thing()
    thing.__dict__.update(lr=1.0, me=thing)
    tree = tree_of(pickle.dumps([thing], 2))
    name = tree.value[0].name
    made = pickle.loads(written(tree, [Replace(at(0, name, "lr"), 0.5)]))
    assert made[0].lr == 0.5
    assert made[0].me is made[0]


def test_edits_are_undone() -> None:
    """The graph is as it was when its edited form has been used, also if that failed."""
    data = pickle.dumps({"a": [1, (2, 3)], "b": {}}, 2)
    tree = tree_of(data)
    before = emit(tree.root, 2)
    edits = [Delete(at("a", 1, 0)), Replace(at("a", 0), 5), Insert(at("b", "new"), 1)]
    assert written(tree, edits) != before
    assert emit(tree.root, 2) == before
    with pytest.raises(LimitError), tree.edited(edits):
        raise LimitError("while it is written")
    assert emit(tree.root, 2) == before


def test_the_same_edit_twice() -> None:
    """Two paths to one place may carry the same edit."""
    shared = {"a": 1, "b": 2}
    edits = [Replace(at(i, "a"), 5) for i in (0, 1)] + [Delete(at(i, "b")) for i in (0, 1)]
    edits += [Insert(at(i, "c"), 7) for i in (0, 1)]
    assert edited([shared, shared], *edits)[1] == {"a": 5, "c": 7}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([Replace(at(0, "a"), 5), Replace(at(1, "a"), 6)], "contradict"),
        ([Replace(at(0, "a"), 5), Delete(at(1, "a"))], "contradict"),
        ([Insert(at(0, "z"), 5), Insert(at(1, "z"), 5.0)], "contradict"),
        ([Insert(at(0, "a"), 5)], "it is there"),
        ([Insert(at(5), 5)], "not in a mapping"),
        ([Delete(at(0, "z"))], "nothing at '0.z'"),
        ([Delete(at(7, "z"))], "no '7' on the way"),
        ([Delete(at(0, "a", "b"))], "nothing at"),
        ([Delete(at())], "whole of a file"),
    ],
)
def test_edits_that_make_no_sense(edits: list[Edit], message: str) -> None:
    """Edits that contradict each other or name no place are a ValueError."""
    shared = {"a": 1}
    with pytest.raises(ValueError, match=message):
        edited([shared, shared], *edits)


def test_python_2_pairs_stay() -> None:
    """Values in pairs can be replaced; pairs cannot be taken out."""
    data = b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'a'\naI1\naatR."
    made = written(tree_of(data), [Replace(at("a"), 2)])
    assert pickle.loads(made) == {"a": 2}
    with pytest.raises(ValueError, match="pair as Python 2 writes it"):
        written(tree_of(data), [Delete(at("a"))])


# Tensors


def ids(tensor: TensorRef) -> tuple[Any, ...]:
    return storage_id(tensor, "new")


def ref(dtype: str, *shape: int) -> TensorRef:
    return TensorRef(dtype, shape, Computed(lambda: iter(())), "made")


def reread(tree: Tree, edits: Sequence[Edit], new_storage: NewStorage | None = None) -> Tree:
    """The edited pickle, read again."""
    return tree_of_file(written(tree, edits, new_storage))


def tree_of_file(data: bytes) -> Tree:
    return Tree(parse(data, where="y")[0], Storages(), "y")


def test_dropped_tensors_lose_their_storage() -> None:
    """A storage stays as long as one tensor looks into it."""
    base = torch.zeros(6)
    tree = tree_of(data_of({"a": base, "b": base[1:], "c": torch.ones(2)}))
    assert len(collect_storages(tree.root)) == 3
    left = reread(tree, [Delete(at("a")), Delete(at("c"))])
    assert [view.source.offset for view in left.value.values()] == [1]
    assert len(collect_storages(left.root)) == 1


def test_tensor_moved() -> None:
    """A TensorRef of the file put elsewhere is the same object there."""
    tree = tree_of(data_of({"a": torch.zeros(6), "b": 0}))
    again = reread(tree, [Replace(at("b"), tree.value["a"])])
    assert again.value["a"] is again.value["b"]
    moved = reread(tree, [Replace(at("b"), tree.value["a"]), Delete(at("a"))])
    assert moved.value["b"].shape == (6,)


def test_new_look_into_a_storage() -> None:
    """A new TensorRef over a storage of the file needs no new storage."""
    tree = tree_of(data_of({"a": torch.zeros(6)}))
    storage = tree.value["a"].source.storage
    view = TensorRef("float32", (2, 2), Stored(storage, (1, 2), 1))
    again = reread(tree, [Insert(at("b"), view)])
    assert again.value["b"].shape == (2, 2)
    assert again.value["b"].source == Stored(again.value["a"].source.storage, (1, 2), 1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64", "bool", "uint16", "float8_e5m2"])
def test_new_tensor(dtype: str) -> None:
    """A tensor that is not in the file gets a storage of its own, row-major."""
    tree = tree_of(data_of({"a": torch.zeros(6)}))
    again = reread(tree, [Insert(at("b"), ref(dtype, 3, 2))], ids)
    made = again.value["b"]
    assert (made.dtype, made.shape, made.source.stride) == (dtype, (3, 2), (2, 1))
    assert made.source.storage.label == "data/new"


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint16], ids=str)
def test_tensors_are_spelled_as_torch_spells_them(dtype: torch.dtype) -> None:
    """The nodes of a new tensor are those that torch.save writes."""
    data = data_of(torch.zeros(3, 2, dtype=dtype))
    tensor = ref(str(dtype).removeprefix("torch."), 3, 2)
    made = emit(encode(tensor, lambda t: storage_id(t, "0")), 2)
    assert shape_of(parse(made, where="x")[0]) == shape_of(parse(data, where="x")[0])


def shape_of(node: Any) -> Any:
    """A graph as nested tuples, without the memo."""
    node = getattr(node, "target", node)
    if hasattr(node, "value"):
        return node.value
    name = getattr(node, "full_name", "")
    return (node.op, name, tuple(shape_of(item) for item in node.items))


def test_one_new_tensor_in_two_places() -> None:
    """A new TensorRef is one object in the pickle however often it is used."""
    tensor = ref("float32", 2)
    made = tree_of_file(emit(encode({"a": tensor, "b": [tensor]}, ids), 2)).value
    assert made["a"] is made["b"][0]


def test_no_room_for_a_new_tensor() -> None:
    """A pickle without storages takes no tensor."""
    with pytest.raises(LayoutError, match="tensor 'made' is not in this file"):
        encode(ref("float32", 2))


# Plain values


@pytest.mark.parametrize(
    "value",
    [
        None, True, 0, 255, 256, 65535, 65536, -1, 1 << 31, -(1 << 31), -(1 << 31) - 1, 1 << 90,
        -128, 1.5, "", "\u00e9\ud800", b"", b"\x00\xff", [], {},
        {"a": {1: [(), (1,), (1, 2, 3, 4)]}},
    ],
)  # fmt: skip
def test_encode(value: object) -> None:
    """Plain values load as themselves, and without any opcode that weights_only lacks."""
    made = pickle.loads(emit(encode(value), 2))
    assert made == value
    assert type(made) is type(value)


def test_encode_keeps_aliases() -> None:
    """A list in two places, or in itself, is so again."""
    shared: list[Any] = [1]
    shared.append(shared)
    made = pickle.loads(emit(encode({"a": shared, "b": shared}), 2))
    assert made["a"] is made["b"] is made["a"][1]


def test_encode_views_of_another_file() -> None:
    """Views of another tree are copied as the plain values that they show."""
    view = tree_of(pickle.dumps({"a": (1, [2]), "b": collections.OrderedDict(x=1)}, 2)).value
    assert pickle.loads(emit(encode(view), 2)) == {"a": (1, [2]), "b": {"x": 1}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (Opaque("some.Class", (), None), "'some.Class' cannot be written"),
        (object(), "'object' cannot be written"),
        (1 << 5000, "integer of 626 bytes"),
    ],
)
def test_values_that_cannot_be_written(value: object, message: str) -> None:
    """What has no spelling is refused by name."""
    with pytest.raises(LayoutError, match=message):
        encode(value)


def test_too_deep_to_be_written() -> None:
    """Nesting has an end here too."""
    value: list[Any] = []
    for _ in range(200):
        value = [value]
    with pytest.raises(LayoutError, match="nested deeper than 100"):
        encode(value)


def test_weights_only_reads_what_is_encoded() -> None:
    """torch's restricted unpickler takes all that is written for new values."""
    from torch._weights_only_unpickler import load

    value = {"a": [1, (2, b"x")], "b": 1 << 80, "c": {"x": None, "y": -1.5}, "d": True}
    assert load(io.BytesIO(emit(encode(value), 2))) == value


def test_edits_of_an_optimizer_file() -> None:
    """A tensor is dropped from every state, a group changes, the other tensors stay as they are."""
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.AdamW(weights)
    for weight in weights:
        weight.grad = torch.ones(2)
    optimizer.step()
    tree = tree_of(data_of(optimizer.state_dict()))
    edits: list[Edit] = [Delete(at("state", i, "exp_avg_sq")) for i in range(3)]
    edits.append(Replace(at("param_groups", 0, "betas"), (0.9, 0.99)))
    again = reread(tree, edits)
    assert [path[-1] for path, _ in tensors(again.value)] == ["step", "exp_avg"] * 3
    assert list(again.value["param_groups"][0]["betas"]) == [0.9, 0.99]
    assert Storage(Span(Path("x"), 0, 0)) != again.value["state"][0]["step"].source.storage


@pytest.mark.parametrize("protocol", [0, 1, 2, 4])
def test_keys_get_other_names(protocol: int) -> None:
    """Order and values stay; a key that stands elsewhere too stays there."""
    name = "weight"
    value = {name: 1, "b": {name: 2}, "names": [name, name]}
    found = edited(value, Rename(at(name), "w"), Rename(at("b", name), 7), protocol=protocol)
    assert found == {"w": 1, "b": {7: 2}, "names": [name, name]}
    assert list(found) == ["w", "b", "names"]


def test_keys_may_change_places() -> None:
    """All Places are those before the first edit."""
    assert edited({"a": 1, "b": 2}, Rename(at("a"), "b"), Rename(at("b"), "a")) == {"b": 1, "a": 2}
    ordered = collections.OrderedDict(a=1, b=2)
    found = edited(ordered, Rename(at("a"), "c"), Delete(at("b")))
    assert found == collections.OrderedDict(c=1)


def test_only_keys_get_other_names() -> None:
    """An item of a list has none."""
    with pytest.raises(ValueError, match=r"'a\.0' has no key that could be renamed"):
        edited({"a": [1]}, Rename(at("a", 0), "x"))

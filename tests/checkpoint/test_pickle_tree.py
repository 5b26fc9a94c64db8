"""Views of pickles: plain values, tensors, opaque objects."""

from __future__ import annotations

import collections
import pickle
from argparse import Namespace
from typing import Any

import numpy as np
import pytest
import torch

from liontool.checkpoint.document import Opaque, Stored, TensorRef, Value, tensors
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_nodes import Node
from liontool.checkpoint.formats.pickle_parse import parse
from liontool.checkpoint.formats.pickle_tree import (
    MappingView,
    SequenceView,
    Tree,
    collect_storages,
)
from liontool.errors import FormatError, LimitError
from support.pickles import Storages, data_of, tree_of


def plain(value: Value) -> Any:
    """Views as the Python values that they show."""
    if isinstance(value, MappingView):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, SequenceView):
        items = [plain(item) for item in value]
        return tuple(items) if value.kind == "tuple" else items
    return value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"a": [1, (2.5, None)], 3: True}, None),
        ("text\u00e9", None),
        ([b"", b"\xff\x00abc"], None),
        (bytearray(b"ab"), b"ab"),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, {1: [2]}), {1: [2]}),
        (collections.Counter("hello"), {"h": 1, "e": 1, "l": 2, "o": 1}),
        (collections.deque([1, 2], 3), [1, 2]),
        ([{7}, frozenset([8])], [[7], [8]]),
        ([np.float64(1.5), np.int32(-7), np.bool_(True), np.float16(0.5), np.uint8(9)], None),
        (np.array(2.5, ">f8")[()], 2.5),
        (1 << 80, None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_plain_values(protocol: int, value: object, expected: object) -> None:
    """Values of the known kinds are shown as what they are, whatever spells them."""
    shown = plain(tree_of(pickle.dumps(value, protocol)).value)
    assert shown == (value if expected is None else expected)


def test_numpy_scalar_under_the_old_name() -> None:
    """numpy 1 and 2 name one function differently."""
    new = pickle.dumps(np.float64(0.25), 2)
    old = new.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert tree_of(new).value == tree_of(old).value == 0.25


def test_views_keep_identity() -> None:
    """The same node is the same view; equal ones that are not the same object are not."""
    shared: list[int] = [1]
    view = tree_of(pickle.dumps({"a": shared, "b": shared, "c": [1]}, 2)).value
    assert view["a"] is view["b"]
    assert view["a"] is not view["c"]
    assert view["a"] != view["c"]


def test_mapping_view() -> None:
    """A mapping has length, order, membership, a kind, and KeyError for what is not there."""
    view = tree_of(pickle.dumps(collections.OrderedDict(b=1, a=2), 2)).value
    assert (list(view), len(view), "a" in view, view.kind) == (["b", "a"], 2, True, "OrderedDict")
    assert repr(view) == "<OrderedDict of 2>"
    assert hash(view) == hash(view)
    with pytest.raises(KeyError):
        view["c"]


def test_sequence_view() -> None:
    """A sequence has indices from both ends, slices, and a kind."""
    view = tree_of(pickle.dumps((1, [2], 3), 2)).value
    assert (view[0], view[-1], view[:1], len(view), view.kind) == (1, 3, [1], 3, "tuple")
    assert repr(view) == "<tuple of 3>"
    with pytest.raises(IndexError):
        view[3]


def test_last_of_equal_keys_wins() -> None:
    """A key that is set twice has the later value and the earlier position."""
    view = tree_of(b"\x80\x02}(K\x01K\x02K\x03K\x04K\x01K\x05u.").value
    assert list(view.items()) == [(1, 5), (3, 4)]


def test_opaque() -> None:
    """An unknown object shows its class, arguments and state, and may contain itself."""
    made = Namespace(lr=0.1)
    made.me = made
    for protocol in range(6):
        view = tree_of(pickle.dumps(made, protocol)).value
        assert isinstance(view, Opaque)
        assert view.name == "argparse.Namespace"
        assert view.state["lr"] == 0.1
        assert view.state["me"] is view
    assert repr(view) == "<argparse.Namespace>"


def test_opaque_call() -> None:
    """A call shows what it was given; a class by itself is opaque too."""
    view = tree_of(pickle.dumps([range(1, 5), ValueError], 2)).value
    assert view[0].name == "__builtin__.xrange"
    assert list(view[0].arguments) == [1, 5, 1]
    assert view[1].name == "exceptions.ValueError"


class Box(dict):  # type: ignore[type-arg]
    """A dict of an unknown class."""


class Row(list):  # type: ignore[type-arg]
    """A list of an unknown class."""


def test_opaque_contents() -> None:
    """Entries and items of unknown classes are shown as their state."""
    view = tree_of(pickle.dumps([Box(a=1), Row([5])], 2)).value
    assert dict(view[0].state) == {"a": 1}
    assert list(view[1].state) == [5]
    assert view[0].state is view[0].state


def test_keys_that_could_collide_are_opaque() -> None:
    """Tuples and huge integers as keys compare by identity."""
    view = tree_of(pickle.dumps({(1, 2): "a", 1 << 70: "b"}, 2)).value
    assert [key.name for key in view] == ["tuple", "object"]
    assert list(view.values()) == ["a", "b"]


def test_python_2_ordered_dict() -> None:
    """Entries given as a list of pairs are entries."""
    data = b"ccollections\nOrderedDict\n((lp0\n(lp1\nS'a'\naI1\naatR."
    assert dict(tree_of(data).value) == {"a": 1}


# Tensors

BASE = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize(
    ("tensor", "expected"),
    [
        (BASE, ("float32", (3, 4), (4, 1), 0)),
        (BASE[1:, 2], ("float32", (2,), (4,), 6)),
        (BASE.t(), ("float32", (4, 3), (1, 4), 0)),
        (torch.tensor(5.0), ("float32", (), (), 0)),
        (torch.zeros(0, 3), ("float32", (0, 3), (3, 1), 0)),
        (torch.zeros(1).expand(1000), ("float32", (1000,), (0,), 0)),
        (torch.zeros(2, dtype=torch.bfloat16), ("bfloat16", (2,), (1,), 0)),
        (torch.zeros(2, dtype=torch.uint16), ("uint16", (2,), (1,), 0)),
        (torch.zeros(2, dtype=torch.float8_e4m3fn), ("float8_e4m3fn", (2,), (1,), 0)),
        (torch.zeros(2, dtype=torch.bool), ("bool", (2,), (1,), 0)),
        (torch.zeros(2, dtype=torch.complex64), ("complex64", (2,), (1,), 0)),
        (torch.nn.Parameter(torch.zeros(2)), ("float32", (2,), (1,), 0)),
    ],
)
def test_tensors(tensor: torch.Tensor, expected: tuple[Any, ...]) -> None:
    """dtype, shape, stride and offset are those of the tensor."""
    view = tree_of(data_of({"x": tensor})).value["x"]
    assert (view.dtype, view.shape, view.source.stride, view.source.offset) == expected
    assert view.label == "x"


def test_tensors_with_attributes() -> None:
    """Attributes on tensors and parameters do not hide them."""
    tensor, parameter = torch.zeros(2), torch.nn.Parameter(torch.zeros(3))
    tensor.tag = parameter.tag = "mine"  # type: ignore[attr-defined]
    view = tree_of(data_of([tensor, parameter])).value
    assert [item.shape for item in view] == [(2,), (3,)]


def test_tied_tensors_share_a_storage() -> None:
    """Two looks into one storage have the same Storage; one tensor twice is one TensorRef."""
    view = tree_of(data_of({"a": BASE, "b": BASE[1:], "c": BASE})).value
    assert view["a"].source.storage is view["b"].source.storage
    assert view["a"] is view["c"]


def test_other_tensors_are_opaque() -> None:
    """What is not simply the elements of a storage stays a call."""
    values = [torch.eye(2).to_sparse(), torch.zeros(2, dtype=torch.cfloat).conj()]
    values += [torch.zeros(2, device="meta")]
    view = tree_of(data_of(values)).value
    assert [item.name.rpartition(".")[2] for item in view] == [
        "_rebuild_sparse_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_meta_tensor_no_storage",
    ]


def test_tensor_beyond_its_storage() -> None:
    """A tensor that reaches out of its storage is refused with its path."""
    data = data_of({"state": {0: {"exp_avg": BASE}}})
    message = r"x.pt: tensor 'state.0.exp_avg' reaches to element 12 of a storage that has 11"
    with pytest.raises(FormatError, match=message):
        list(tensors(tree_of(data, length=47).value))


def call(offset: int, size: tuple[Any, ...], stride: tuple[Any, ...]) -> bytes:
    """A pickle of a tensor with these claims."""
    sizes = [pickle.dumps(part, 2)[2:-1] for part in (offset, size, stride)]
    pid = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x0ctQ"
    unmemoized = b"".join(part.split(b"q\0")[0] for part in sizes)
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + pid + unmemoized + b"\x89NtR."


@pytest.mark.parametrize(
    ("claims", "message"),
    [
        ((-1, (2,), (1,)), "whole numbers from 0 up"),
        ((0, (-2,), (1,)), "whole numbers from 0 up"),
        ((0, (2,), (-1,)), "whole numbers from 0 up"),
        ((0, (2.0,), (1,)), "whole numbers from 0 up"),
        ((0, (1 << 63,), (0,)), "whole numbers from 0 up"),
        ((0, (1,) * 65, (1,) * 65), "whole numbers from 0 up"),
        ((0, (2, 2), (1,)), "2 sizes and 1 strides"),
        ((11, (2,), (1,)), "reaches to element 13"),
        ((0, (2,), (1 << 62,)), "reaches to element"),
        ((13, (0,), (1,)), "reaches to element 13"),
        ((0, (1 << 62, 1 << 62), (0, 0)), "claims .* elements"),
    ],
)
def test_claims_of_tensors(claims: tuple[Any, ...], message: str) -> None:
    """Each impossible size, stride and offset has its error."""
    tree = tree_of(call(*claims))
    with pytest.raises(FormatError, match=message):
        _ = tree.value
    assert tree_of(call(0, (3, 4), (4, 1))).value.shape == (3, 4)


def test_repeats_beyond_measure_are_a_limit() -> None:
    """A storage of one element cannot stand for a terabyte."""
    with pytest.raises(LimitError, match="claims 1099511627776 elements"):
        _ = tree_of(call(0, (1 << 40,), (0,))).value


def test_too_few_arguments() -> None:
    """A tensor function with too few arguments is damaged."""
    with pytest.raises(FormatError, match="has 1 arguments where 6 belong"):
        _ = tree_of(b"ctorch._utils\n_rebuild_tensor_v2\n(NtR.").value


# Real optimizers


def stepped(parameters: list[torch.nn.Parameter], **options: Any) -> torch.optim.AdamW:
    optimizer = torch.optim.AdamW(parameters, **options)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return optimizer


def optimizer_files() -> dict[str, Any]:
    """What is saved of optimizers in their several forms."""
    weights = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(4))]
    half = [torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))]
    named = torch.optim.AdamW([("w", weights[0]), ("b", weights[1])])
    optimizer = stepped(weights, lr=0.1)
    tied = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    files = {
        "default": optimizer.state_dict(),
        "amsgrad": stepped(weights, amsgrad=True).state_dict(),
        "lr tensor": stepped(weights, lr=torch.tensor(0.1)).state_dict(),
        "bf16": stepped(half).state_dict(),
        "named": named.state_dict(),
        "tied": {
            "model": tied.state_dict(),
            "optimizer": stepped([*tied.parameters()]).state_dict(),
        },
        "parameters": {"list": weights, "again": weights[0]},
        "module": tied,
    }
    makers = {
        "MultiStepLR": lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [2, 2, 3]),
        "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 5),
        "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 10),
        "ReduceLROnPlateau": torch.optim.lr_scheduler.ReduceLROnPlateau,
    }
    for name, make in makers.items():
        optimizer = stepped(weights, lr=0.1)
        scheduler = make(optimizer).state_dict()
        files[name] = {"optimizer": optimizer.state_dict(), "scheduler": scheduler}
    return files


FILES = optimizer_files()


@pytest.mark.parametrize("name", FILES)
def test_files_of_torch_are_written_byte_for_byte(name: str) -> None:
    """data.pkl comes out as it went in."""
    data = data_of(FILES[name])
    root, used = parse(data, where="x")
    assert used == len(data)
    assert emit(root, 2) == data


@pytest.mark.parametrize("name", ["default", "amsgrad", "lr tensor", "bf16", "named"])
def test_optimizer_views(name: str) -> None:
    """Groups and state are what the optimizer saved."""
    view = tree_of(data_of(FILES[name])).value
    assert plain_like(view) == plain_like(FILES[name])


def plain_like(value: Any) -> Any:
    """Values with tensors as dtype and shape."""
    if isinstance(value, torch.Tensor):
        return (str(value.dtype).removeprefix("torch."), tuple(value.shape))
    if isinstance(value, TensorRef):
        assert isinstance(value.source, Stored)
        return (value.dtype, value.shape)
    if isinstance(value, (dict, MappingView)):
        return {key: plain_like(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, SequenceView)):
        return [plain_like(item) for item in value]
    return value


def test_collect_storages() -> None:
    """Storages are listed in the order of their first use."""
    root: Node = parse(data_of({"a": BASE, "b": torch.zeros(2), "c": BASE[1:]}), where="x")[0]
    keys = [
        Tree(root, Storages(), "x").view(pid, ()).arguments[2] for pid in collect_storages(root)
    ]
    assert list(dict.fromkeys(keys)) == ["0", "1"]

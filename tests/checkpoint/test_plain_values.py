"""Values of documents for people and for JSON."""

from __future__ import annotations

import json

import pytest

from liontool.checkpoint.document import Computed, Opaque, TensorRef, is_list
from liontool.checkpoint.formats import open_document
from liontool.checkpoint.plain_values import json_exact, json_value, plain
from liontool.checkpoint.values import from_scalars
from liontool.errors import LayoutError
from liontool.wording import value as worded


def _tensor(dtype, shape):
    return TensorRef(dtype, shape, Computed(lambda: iter([])))


NESTED = {"a": [1, (2.5, None)], "b": {"c": True, 3: "x"}, "d": b"\x00"}


def test_plain_values_stay():
    """What is plain already is copied with its types."""
    found = plain(NESTED)
    assert found == NESTED
    assert isinstance(found["a"][1], tuple)
    assert found["b"] is not NESTED["b"]


def test_a_bytearray_is_one_value():
    """Nobody walks its bytes: it is shown, listed and kept as bytes are."""
    value = bytearray(b"ab")
    assert plain([value]) == [value]
    assert not is_list(value)
    assert json_value(value) == str(value)
    assert worded(value) == str(value)
    with pytest.raises(LayoutError, match="holds bytearray"):
        json_exact(value, "extras")


def test_tensors_and_objects():
    """One element is its number, more are a description; an object is its class."""
    assert plain(from_scalars("bfloat16", [0.5])) == 0.5
    assert plain(from_scalars("int64", [2**60], (1, 1))) == 2**60
    assert plain(_tensor("float32", (3, 4))) == "float32[3, 4]"
    assert plain(_tensor("complex64", ())) == "complex64[]"
    assert plain(_tensor("float32", (0,))) == "float32[0]"
    assert plain([Opaque("my.Config", (), None)]) == ["<my.Config>"]
    assert plain({Opaque("tuple", (), None): 1}) == {"<tuple>": 1}


def test_recursive_values_end():
    """A value that contains itself ends in three dots."""
    loop = {"x": 1}
    loop["me"] = loop
    found = plain(loop)
    for _ in range(16):
        found = found["me"]
    assert found == "..."


def test_few_lists_that_stand_for_billions():
    """Shared lists are not unfolded without end."""
    value = [0] * 100
    for _ in range(12):
        value = [value] * 100
    assert len(repr(plain(value))) < 1_000_000


def test_huge_integers():
    """An integer that Python refuses to spell is told by its size."""
    assert plain([1 << 99_999]) == ["integer of 100000 bits"]
    assert plain(-(10**50)) == -(10**50)


def test_json_value_is_strict():
    """What JSON lacks becomes text, what it has stays."""
    value = {1: (1.5, float("nan"), float("-inf")), "b": {True}, "c": b"x", "d": None, "e": 1j}
    found = json_value(value)
    assert found == {"1": [1.5, "nan", "-inf"], "b": [True], "c": "b'x'", "d": None, "e": "1j"}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_json_exact_can_be_read_back():
    """Tuples become lists and tensors numbers, nothing else changes."""
    value = {"a": [1, (2.5, None)], "lr": from_scalars("float32", [0.25]), "...": "..."}
    found = json.loads(json.dumps(json_exact(value, "group 0")))
    assert found == {"a": [1, [2.5, None]], "lr": 0.25, "...": "..."}
    assert json.loads(json.dumps(json_exact(float("inf"), "x"))) == float("inf")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (b"x", "b'x'"),
        ([1, 1j], "1j"),
        ({"a": {1: 2}}, "keys are not all text"),
        (_tensor("float32", (2,)), r"float32\[2\]"),
        (Opaque("torch.float32", (), None), "<torch.float32>"),
        (1 << 99_999, "integer of 100000 bits"),
    ],
    ids=["bytes", "complex", "keys", "tensor", "object", "huge"],
)
def test_json_exact_refuses(value, shown):
    """What could not be read back is an error that says where it is."""
    with pytest.raises(LayoutError, match=f"^group 0: 'a' holds .*{shown}.*cannot keep"):
        json_exact([value], "group 0: 'a'")


def test_json_exact_refuses_what_has_no_end():
    """A recursive value has no JSON."""
    loop = []
    loop.append(loop)
    with pytest.raises(LayoutError, match=r"holds \.\.\., which"):
        json_exact(loop, "group 0: 'a'")


def test_views_of_a_file(tmp_path):
    """Views of a pickle are told as what they stand for."""
    torch = pytest.importorskip("torch")
    path = tmp_path / "a.pt"
    torch.save({"betas": (0.9, 0.99), "list": [torch.tensor(2.0), torch.ones(2)]}, path)
    found = plain(open_document(path).tree)
    assert found == {"betas": (0.9, 0.99), "list": [2.0, "float32[2]"]}

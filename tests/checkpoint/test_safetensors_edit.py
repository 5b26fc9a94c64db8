"""Safetensors files with edits: tensors, names, metadata; as pieces, and as a header alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from liontool.checkpoint import copying
from liontool.checkpoint.document import Delete, Edit, Insert, Place, Rename, Replace
from liontool.checkpoint.formats.json_file import JsonDocument
from liontool.checkpoint.formats.safetensors_edit import header_in_place, keeps_tensors
from liontool.checkpoint.formats.safetensors_file import RESERVE, SafetensorsDocument
from liontool.checkpoint.values import from_scalars
from liontool.errors import LayoutError
from support.edited_runs import save_shards
from support.torch_files import write

TENSORS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.arange(4, dtype=np.int64),
    "c": np.ones(3, dtype=np.float16),
}


def at(*path: str) -> Place:
    return Place("", path)


@pytest.fixture
def document(tmp_path: Path) -> SafetensorsDocument:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": "pt", "note": "old"})
    return SafetensorsDocument(path)


def rewritten(document: SafetensorsDocument, *edits: Edit) -> Path:
    pieces = document.rewritten(edits, scan=frozenset(), provenance=None)
    return write(pieces, document.path.with_name("y.safetensors"))


def test_tensors_come_go_and_get_other_names(document: SafetensorsDocument) -> None:
    """The library reads the result; what is not named is the same."""
    new = from_scalars("float32", [7.0, 8.0], (2,))
    path = rewritten(
        document,
        Delete(at("c")),
        Rename(at("a"), "b"),
        Rename(at("b"), "a"),
        Insert(at("d"), new),
    )
    found = load_file(path)
    assert sorted(found) == ["a", "b", "d"]
    np.testing.assert_array_equal(found["b"], TENSORS["a"])
    np.testing.assert_array_equal(found["a"], TENSORS["b"])
    np.testing.assert_array_equal(found["d"], [7, 8])
    assert SafetensorsDocument(path).facts == {"format": "pt", "note": "old"}


def test_a_tensor_is_replaced(document: SafetensorsDocument) -> None:
    """With other values, shape and dtype."""
    path = rewritten(document, Replace(at("c"), from_scalars("float32", [1.0, 2.0], (2, 1))))
    np.testing.assert_array_equal(load_file(path)["c"], np.array([[1], [2]], dtype=np.float32))


def test_metadata_come_and_go(document: SafetensorsDocument) -> None:
    """Strings by key."""
    path = rewritten(
        document,
        Delete(at("__metadata__", "note")),
        Insert(at("__metadata__", "author"), "me"),
        Replace(at("__metadata__", "format"), "np"),
    )
    assert SafetensorsDocument(path).facts == {"format": "np", "author": "me"}
    assert {name: array.tolist() for name, array in load_file(path).items()} == {
        name: array.tolist() for name, array in TENSORS.items()
    }


def test_bodies_are_copied_and_not_read(document: SafetensorsDocument) -> None:
    """One literal for the header, and raw ranges."""
    pieces = document.rewritten([Delete(at("b"))], scan=frozenset(), provenance={"x": 1})
    assert isinstance(pieces[0], copying.Literal)
    assert all(isinstance(piece, copying.Raw) for piece in pieces[1:])
    assert json.loads(SafetensorsDocument(write(pieces, document.path.with_name("y"))).facts[
        "liontool.provenance"
    ]) == {"x": 1}  # fmt: skip


@pytest.mark.parametrize("edit", [Delete(at("x")), Rename(at("x"), "y"), Replace(at("x"), None)])
def test_what_is_not_there_cannot_be_edited(document: SafetensorsDocument, edit: Edit) -> None:
    """That is a mistake of ours."""
    with pytest.raises(ValueError, match="there is nothing at 'x'"):
        document.rewritten([edit], scan=frozenset(), provenance=None)


def test_two_tensors_have_two_names(document: SafetensorsDocument) -> None:
    """One would be lost."""
    with pytest.raises(ValueError, match="two entries would have one key"):
        document.rewritten([Rename(at("a"), "b")], scan=frozenset(), provenance=None)


def test_a_header_is_as_long_as_before(document: SafetensorsDocument) -> None:
    """Names and metadata change in it, offsets do not."""
    own = SafetensorsDocument(rewritten(document))
    assert own.overhead >= RESERVE
    edits = [Rename(at("a"), "longer.name"), Replace(at("__metadata__", "note"), "n" * 1000)]
    assert keeps_tensors(own, edits)
    header = header_in_place(own, edits, {"edits": []})
    assert header is not None
    assert len(header) == own.overhead
    data = own.path.read_bytes()
    own.path.write_bytes(header + data[len(header) :])
    found = load_file(own.path)
    np.testing.assert_array_equal(found["longer.name"], TENSORS["a"])
    np.testing.assert_array_equal(found["b"], TENSORS["b"])
    assert SafetensorsDocument(own.path).facts["note"] == "n" * 1000


def test_a_header_without_room_is_none(document: SafetensorsDocument) -> None:
    """To the byte."""
    own = SafetensorsDocument(rewritten(document))

    def fits(count: int) -> bool:
        edit = Replace(at("__metadata__", "note"), "n" * count)
        return header_in_place(own, [edit], None) is not None

    most = max(count for count in range(RESERVE, RESERVE + 16) if fits(count))
    assert not fits(most + 1)
    assert header_in_place(own, [Replace(at("__metadata__", "note"), "é" * most)], None) is None


def test_tensors_that_change_are_told(document: SafetensorsDocument) -> None:
    """Those need more than a header."""
    assert not keeps_tensors(document, [Delete(at("a"))])
    assert not keeps_tensors(document, [Insert(at("x"), from_scalars("float32", [1.0]))])
    assert keeps_tensors(document, [])


def test_an_index_is_edited_as_json(tmp_path: Path) -> None:
    """The shards are documents of their own; together they are not one file."""
    save_shards(tmp_path / "m")
    index = SafetensorsDocument(tmp_path / "m" / "model.safetensors.index.json")
    place = at("weight_map", "head.bias")
    pieces = index.rewritten([Rename(place, "h")], scan=frozenset(), provenance=None)
    found = json.loads(write(pieces, tmp_path / "y").read_bytes())
    assert found["weight_map"]["h"] == "b.safetensors"
    assert "head.bias" not in found["weight_map"]
    with pytest.raises(LayoutError, match="edit the folder that it lies in"):
        index.rewritten([Delete(at("head.bias"))], scan=frozenset(), provenance=None)


def test_json_is_edited_in_objects_alone(tmp_path: Path) -> None:
    """Lists have no keys."""
    path = tmp_path / "x.json"
    path.write_text('{"a": {"b": 1, "c": [1]}, "d": 2}')
    document = JsonDocument(path)
    edits = [Rename(at("a"), "z"), Insert(at("a", "n"), 3), Delete(at("a", "b"))]
    pieces = document.rewritten(edits, scan=frozenset(), provenance=None)
    assert json.loads(write(pieces, tmp_path / "y").read_bytes()) == {
        "z": {"c": [1], "n": 3},
        "d": 2,
    }
    with pytest.raises(ValueError, match=r"there is no object at 'a\.c'"):
        document.rewritten([Delete(at("a", "c", "0"))], scan=frozenset(), provenance=None)

"""Lists and trees of tensors."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from liontool.inspect.tensors import list_tensors
from liontool.inspect.tree import tree


def test_list(run: Path) -> None:
    """Every tensor with type, shape, size and place; what shares its bytes counts once."""
    found = list_tensors(run)
    state = torch.load(run)
    weights = {entry.name: entry for entry in found.tensors if entry.role == "weight"}
    assert weights.keys() == state["model"].keys()
    entry = weights["h.3.weight"]
    assert (entry.dtype, entry.shape, entry.elements, entry.bytes) == ("float32", (4, 4), 16, 64)
    assert (entry.label, entry.file, entry.shares) == ("model.h.3.weight", "", None)
    assert weights["head.weight"].shares == "wte.weight"
    parameters = 40 + 11 * 20
    assert found.elements == 3 * parameters + 23
    assert found.bytes == 4 * found.elements
    assert found.matched == found.total == 24 + 3 * 23


def test_filter_and_order(run: Path) -> None:
    """Globs look at names and at labels; numbers sort as numbers, sizes from the largest."""
    found = list_tensors(run, filters=["model.h.*", "!*.bias"], order="name")
    assert [entry.name for entry in found.tensors] == [f"h.{n}.weight" for n in range(11)]
    assert (found.matched, found.total) == (11, 93)
    sizes = [entry.bytes for entry in list_tensors(run, order="size").tensors]
    assert sizes == sorted(sizes, reverse=True)


def test_unknown_order(run: Path) -> None:
    """The orders are named."""
    with pytest.raises(ValueError, match="unknown order 'age', choose from: file, name, size"):
        list_tensors(run, order="age")


def test_files_of_a_folder(tmp_path: Path) -> None:
    """In a folder each tensor says which file it lies in."""
    save_file({"w": torch.ones(2)}, tmp_path / "model.safetensors")
    torch.save({"b": torch.ones(3)}, tmp_path / "pytorch_model.bin")
    files = {entry.name: entry.file for entry in list_tensors(tmp_path).tensors}
    assert files == {"w": "model.safetensors", "b": "pytorch_model.bin"}


def test_json(run: Path) -> None:
    """The list is a JSON document with the version of its schema."""
    document = json.loads(json.dumps(list_tensors(run).to_dict(), allow_nan=False))
    assert document["schema"] == 1
    assert document["tensors"][0].keys() >= {"name", "dtype", "shape", "bytes", "role", "file"}


def test_tree(run: Path) -> None:
    """Branches that differ in a number are one, with all their tensors and bytes."""
    root = tree(list_tensors(run, filters=["h.*"]).tensors)
    numbered = root.parts["h"].parts["{}"]
    assert numbered.label("{}") == "{0-10}"
    assert (numbered.tensors, numbered.bytes) == (22, 11 * 20 * 4)
    assert len(numbered.parts["bias"].entries) == 11


def test_views_of_one_storage(tmp_path: Path) -> None:
    """Slices of a tensor that is there too are its bytes; slices without it are their own."""
    whole = torch.randn(6, 4)
    parts = {"q": whole[:2], "k": whole[2:4]}
    torch.save({"model": {"qkv": whole, **parts}}, tmp_path / "a.pt")
    torch.save({"model": parts}, tmp_path / "b.pt")
    found = list_tensors(tmp_path / "a.pt")
    assert {entry.name: entry.shares for entry in found.tensors} == {
        "qkv": None, "q": "qkv", "k": "qkv",
    }  # fmt: skip
    assert found.bytes == 96
    assert list_tensors(tmp_path / "b.pt").bytes == 64

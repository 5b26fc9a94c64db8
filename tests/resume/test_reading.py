"""A checkpoint is read into memory of its own, and whatever is wrong with it is one clear error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.run_folder.layout import FACTS, tensors_name, tree_name
from liontool.errors import FormatError, LayoutError, LiontoolError, ReadError
from liontool.resume.difference import difference
from liontool.resume.reading import read_state
from support.run_folders import changed_json
from support.run_parts import Parts, net

ODD = {
    "half": torch.arange(3, dtype=torch.bfloat16),
    "wide": torch.tensor([1 + 2j], dtype=torch.complex128),
    "flags": torch.tensor([True, False]),
    "none": torch.empty(0, 3),
    "one": torch.tensor(7, dtype=torch.uint8),
    "turned": torch.arange(6.0).reshape(2, 3).t(),
    "text": ("a", {1: float("-inf")}),
}


class Odd:
    """State of every kind."""

    def __init__(self) -> None:
        self.held: Any = {}

    def state_dict(self) -> Any:
        return self.held

    def load_state_dict(self, state: Any) -> None:
        self.held = state


def _parts() -> Parts:
    model = net()
    return Parts(model, torch.optim.AdamW(model.parameters()), extras={"odd": Odd()})


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    parts = _parts()
    parts.extras["odd"].held = ODD
    return parts.train(0, 2).save(tmp_path / "run")


def test_every_kind_of_tensor(checkpoint: Path) -> None:
    """Dtypes, shapes and strides come back."""
    state, facts = read_state(checkpoint, {})
    assert difference(state["extras"]["odd"], ODD) is None
    assert facts["step"] == 3
    assert facts["classes"]["optimizer"] == "torch.optim.adamw.AdamW"


def test_the_file_may_go(checkpoint: Path) -> None:
    """Retention takes it away while its tensors are in use."""
    state, _ = read_state(checkpoint, {})
    file = checkpoint / tensors_name()
    file.write_bytes(bytes(file.stat().st_size))
    assert difference(state["extras"]["odd"], ODD) is None


def test_equal_names_are_one_tensor(tmp_path: Path) -> None:
    """What shared its memory does so again."""
    parts = _parts()
    parts.extras["odd"].held = {"a": ODD["half"], "b": ODD["half"]}
    state, _ = read_state(parts.save(tmp_path / "run"), {})
    assert state["extras"]["odd"]["a"] is state["extras"]["odd"]["b"]


def _set(key: str, value: Any) -> Any:
    return lambda body: body.update({key: value})


@pytest.mark.parametrize(
    ("file", "change", "error", "match"),
    [
        (tree_name(), _set("tensors", "../x"), FormatError, "names other tensors than state-0.saf"),
        (tree_name(), _set("liontool.state", 2), LayoutError, "layout 2 is newer than this liont"),
        (tree_name(), lambda body: body.pop("liontool.state"), FormatError, "must be an object"),
        (tree_name(), lambda body: [body], FormatError, "must be an object with 'liontool.state'"),
        (tree_name(), lambda body: body.pop("tree"), FormatError, "tree must be an object"),
        (
            tree_name(),
            _set("tree", {"model": {"w": {"$tensor": {"name": "other"}}}}),
            FormatError,
            "model.w: .*'other'",
        ),
        (FACTS, _set("liontool.run", 2), LayoutError, "layout 2 is newer than this liontool"),
    ],
)
def test_files_of_another_making(
    file: str, change: Any, error: type[LiontoolError], match: str, checkpoint: Path
) -> None:
    """They may have been written by anybody."""

    def made(body: Any) -> Any:
        found = change(body)
        return found if isinstance(found, list) else None

    changed_json(checkpoint, file, made)
    with pytest.raises(error, match=match) as caught:
        read_state(checkpoint, {})
    assert file in str(caught.value)


def test_a_file_that_is_cut_off(checkpoint: Path) -> None:
    """The header says more than there is."""
    file = checkpoint / tensors_name()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ReadError, match=r"state-0.safetensors: .*cut off or damaged"):
        read_state(checkpoint, {})


def test_a_file_that_is_missing(checkpoint: Path) -> None:
    """That is no state without tensors."""
    (checkpoint / tensors_name()).unlink()
    with pytest.raises(ReadError, match=r"state-0.safetensors: cannot be .*: No such file"):
        read_state(checkpoint, {})


def test_the_json_is_plain(checkpoint: Path) -> None:
    """Strict JSON, which any reader takes."""
    body = json.loads((checkpoint / tree_name()).read_text(), parse_constant=pytest.fail)
    assert body["tensors"] == tensors_name()

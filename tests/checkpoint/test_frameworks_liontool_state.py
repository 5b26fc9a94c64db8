"""State files whose metadata is not what liontool writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.copying import write
from liontool.checkpoint.document import Delete, Insert, Place, Rename, Replace, TensorRef
from liontool.checkpoint.formats.safetensors_file import pieces
from liontool.checkpoint.frameworks import liontool_state
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import open_source
from liontool.checkpoint.values import from_scalars
from liontool.errors import FormatError, LimitError, LiontoolError

GROUP = {"lr": 1e-3, "betas": [0.9, 0.99], "params": ["a"]}


def found(path: Path, label: str = "a", **changes: Any) -> Checkpoint | None:
    """What is in a state file with one tensor and some metadata of its own."""
    tensors: dict[str, TensorRef] = {f"state.{label}.exp_avg": from_scalars("float32", [1.0])}
    metadata = {"param_groups": [GROUP], "lr_scheduler": [], "provenance": {}, **changes}
    facts = {f"liontool.{key}": json.dumps(value) for key, value in metadata.items()}
    with path.open("wb") as file:
        write(pieces(tensors, {"liontool.schema": "1", **facts}), file.fileno())
    return liontool_state.find(open_source(path))


@pytest.mark.parametrize("params", [None, 3, "ab", {"a": 1}, ["a", 1], [["a"]]])
def test_params_are_names(tmp_path: Path, params: Any) -> None:
    """Parameters that are not a list of names are refused."""
    with pytest.raises(FormatError, match="must list the names of its parameters"):
        found(tmp_path / "x.safetensors", param_groups=[{**GROUP, "params": params}])


@pytest.mark.parametrize("groups", [None, 3, {}, [3], [GROUP, "x"]])
def test_groups_are_objects(tmp_path: Path, groups: Any) -> None:
    """Groups that are no objects are refused."""
    with pytest.raises(FormatError, match="must be a JSON list of objects"):
        found(tmp_path / "x.safetensors", param_groups=groups)


@pytest.mark.parametrize("children", [None, 3, "ab", {}, [True], [[{}]]])
def test_nested_schedulers_are_objects(tmp_path: Path, children: Any) -> None:
    """Nested schedulers that are no list of objects are refused."""
    with pytest.raises(FormatError, match="_schedulers must be a list of objects"):
        found(tmp_path / "x.safetensors", lr_scheduler=[{"_schedulers": children}])


def test_schedulers_nested_too_deep(tmp_path: Path) -> None:
    """Schedulers nested beyond reason are refused."""
    nested: dict[str, Any] = {}
    for _ in range(40):
        nested = {"_schedulers": [nested]}
    with pytest.raises(LimitError, match="nested more than 32 deep"):
        found(tmp_path / "x.safetensors", lr_scheduler=[nested])


@pytest.mark.parametrize("step", [None, "30", [], {}, float("nan"), float("inf"), 10**400])
def test_step_is_a_number(tmp_path: Path, step: Any) -> None:
    """A step that is no number is not known."""
    checkpoint = found(tmp_path / "x.safetensors", provenance={"step": step})
    assert checkpoint is not None
    assert checkpoint.step is None


@pytest.mark.parametrize(
    ("label", "key"), [("7", 7), ("layer.weight", "layer.weight"), ("9" * 5000, "9" * 5000),
                       ("\u0663", "\u0663")]
)  # fmt: skip
def test_key(tmp_path: Path, label: str, key: int | str) -> None:
    """Plain digits are a position, whatever else is a name."""
    checkpoint = found(
        tmp_path / "x.safetensors", label, param_groups=[{**GROUP, "params": [label]}]
    )
    assert checkpoint is not None
    (optimizer,) = checkpoint.optimizers
    assert list(optimizer.slots) == [key]
    assert optimizer.groups[0].params == (key,)


@pytest.mark.parametrize("name", ["x", "a.exp_avg", "state.exp_avg", "state..exp_avg", ""])
def test_tensors_of_another_layout(tmp_path: Path, name: str) -> None:
    """A tensor whose name says nothing about a parameter is refused, not lost."""
    facts = {"liontool.schema": "1", "liontool.param_groups": "[]", "liontool.lr_scheduler": "[]"}
    with (tmp_path / "x.safetensors").open("wb") as file:
        write(pieces({name: from_scalars("float32", [1.0])}, facts), file.fileno())
    with pytest.raises(FormatError, match=r"is not named state\.<parameter>\.<name>"):
        liontool_state.find(open_source(tmp_path / "x.safetensors"))


@pytest.mark.parametrize("text", ["{", "[" * 100_000, "nul"])
def test_metadata_is_json(tmp_path: Path, text: str) -> None:
    """Metadata that is no JSON is refused."""
    facts = {"liontool.schema": "1", "liontool.param_groups": text}
    with (tmp_path / "x.safetensors").open("wb") as file:
        write(pieces({}, facts), file.fileno())
    with pytest.raises(LiontoolError, match="param_groups is not JSON"):
        liontool_state.find(open_source(tmp_path / "x.safetensors"))


def test_the_plan_is_of_tensors_and_texts(tmp_path: Path) -> None:
    """Tensors are told by what they are; groups and schedulers are one text each."""
    before = found(tmp_path / "x.safetensors")
    assert before is not None
    assert liontool_state.plan(before, before) == []
    (optimizer,) = before.optimizers
    slot, group = optimizer.slots["a"], optimizer.groups[0]
    group = replace(group, params=("b",), names=("b",), fields=group.fields.replaced({"lr": 0.5}))
    other, new = from_scalars("float32", [2.0]), from_scalars("float32", [3.0])

    def planned(**state: TensorRef) -> list[Any]:
        fields = slot.state.without("exp_avg").replaced(state)
        slots = {"b": replace(slot, key="b", name="b", state=fields)}
        changed = replace(optimizer, slots=slots, groups=(group,))
        return liontool_state.plan(before, replace(before, optimizers=(changed,)))

    text = json.dumps([{"lr": 0.5, "betas": [0.9, 0.99], "params": ["b"]}])
    groups = Replace(Place("", ("__metadata__", "liontool.param_groups")), text)
    old = Place("", ("state.a.exp_avg",))
    assert planned(exp_avg=slot.state["exp_avg"]) == [Rename(old, "state.b.exp_avg"), groups]
    assert planned(exp_avg=other, z=new) == [
        Delete(old),
        Insert(Place("", ("state.b.exp_avg",)), other),
        Insert(Place("", ("state.b.z",)), new),
        groups,
    ]
    changed = {"a": replace(slot, state=slot.state.replaced({"exp_avg": other}))}
    after = replace(before, optimizers=(replace(optimizer, slots=changed),))
    assert liontool_state.plan(before, after) == [Replace(old, other)]

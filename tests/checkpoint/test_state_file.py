"""Optimizers in liontool's own layout: names, JSON, and reading them again."""

from __future__ import annotations

import json

import pytest

from liontool.checkpoint import copying, state_file
from liontool.checkpoint.formats import safetensors_file
from liontool.checkpoint.frameworks import find
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.source import open_source
from liontool.checkpoint.values import from_scalars, read
from liontool.errors import FormatError, LayoutError, LimitError


def _moment(*numbers):
    return from_scalars("float32", numbers, (len(numbers),))


def _optimizer(names=("w", "b"), **fields):
    group = ParamGroup(Fields({"lr": 0.1, "betas": (0.9, 0.99), **fields}), (0, 1), names)
    slots = {0: Slot(0, Fields({"exp_avg": _moment(1.0, 2.0)}), names[0] if names else None)}
    child = Scheduler(Fields({"gamma": 0.5}))
    scheduler = Scheduler(Fields({"base_lrs": [0.1], "milestones": {10: 1}}), (child,))
    return Optimizer("opt", (group,), slots, (scheduler,))


@pytest.fixture
def written(tmp_path):
    """Writes tensors and metadata; gives what is found in the file."""

    def write(tensors, metadata):
        path = tmp_path / "state.safetensors"
        with path.open("wb") as file:
            copying.write(safetensors_file.pieces(tensors, metadata), file.fileno())
        return find(open_source(path))[1]

    return write


def test_names_of_tensors():
    """Tensors are named by parameter and state."""
    assert list(state_file.tensors(_optimizer())) == ["state.w.exp_avg"]
    assert list(state_file.tensors(_optimizer(names=()))) == ["state.0.exp_avg"]


def test_positions_where_names_will_not_do():
    """One name that is missing or stands twice, and all parameters go by position."""
    optimizer = _optimizer(names=("w", "w"))
    assert list(state_file.tensors(optimizer)) == ["state.0.exp_avg"]
    groups = json.loads(state_file.metadata(optimizer, "", {})["liontool.param_groups"])
    assert groups[0]["params"] == ["0", "1"]


def test_numbers_become_tensors():
    """A number in a state is a float32 without dimensions."""
    slot = Slot(0, Fields({"step": 7}))
    (tensor,) = state_file.tensors(Optimizer("", (), {0: slot})).values()
    assert (tensor.dtype, tensor.shape, read(tensor)) == ("float32", (), b"\0\0\xe0@")


def test_round_trip(written):
    """What is written is found again, schedulers included."""
    before = _optimizer(tag=["x", 1])
    metadata = state_file.metadata(before, "liontool.optim.Lion 1", {"step": 12})
    checkpoint = written(state_file.tensors(before), metadata)
    (after,) = checkpoint.optimizers
    assert (checkpoint.framework, checkpoint.step) == ("liontool-state", 12)
    assert checkpoint.facts == {"optimizer class": "liontool.optim.Lion 1"}
    (group,) = after.groups
    assert dict(group.fields) == {"lr": 0.1, "betas": (0.9, 0.99), "tag": ["x", 1]}
    assert (group.params, group.names) == (("w", "b"), ("w", "b"))
    assert read(after.slots["w"].state["exp_avg"]) == read(_moment(1.0, 2.0))
    (scheduler,) = after.schedulers
    assert dict(scheduler.fields) == {"base_lrs": [0.1], "milestones": {"10": 1}}
    assert dict(scheduler.children[0].fields) == {"gamma": 0.5}


def test_names_that_look_like_positions(written):
    """Only what is spelled as a position is one: "03" and "3" are two parameters."""
    names = {f"state.{label}.exp_avg": _moment(1.0) for label in ("3", "03", "\u0663", "9" * 5000)}
    metadata = state_file.metadata(_optimizer(), "", {})
    checkpoint = written(names, metadata)
    assert set(checkpoint.optimizers[0].slots) == {3, "03", "\u0663", "9" * 5000}


def test_state_dict():
    """The same as torch's, tensors as they are."""
    optimizer = _optimizer(lr=_moment(0.5))
    found = state_file.state_dict(optimizer)
    assert found["state"] == {0: dict(optimizer.slots[0].state)}
    assert found["param_groups"][0]["params"] == [0, 1]
    assert found["param_groups"][0]["lr"] is optimizer.groups[0].fields["lr"]


def test_metadata_is_exact():
    """Names of parameters stand in `params` alone; what JSON cannot keep is an error."""
    metadata = state_file.metadata(_optimizer(param_names=["w", "b"]), "Lion 1", {"rule": "x"})
    assert all(isinstance(text, str) for text in metadata.values())
    assert "param_names" not in json.loads(metadata["liontool.param_groups"])[0]
    assert json.loads(metadata["liontool.provenance"]) == {"rule": "x"}
    with pytest.raises(LayoutError, match=r"^opt: group 0: 'mine' holds b'x'"):
        state_file.metadata(_optimizer(mine=b"x"), "Lion 1", {})


def _nested(depth):
    scheduler = {"gamma": 1}
    for _ in range(depth):
        scheduler = {"_schedulers": [scheduler]}
    return [scheduler]


@pytest.mark.parametrize(
    ("key", "value", "error", "match"),
    [
        ("schema", "2", LayoutError, "state layout 2 is newer than 1; update liontool"),
        ("param_groups", "{", FormatError, "metadata liontool.param_groups is not JSON"),
        ("param_groups", "1" * 9999, FormatError, "liontool.param_groups is not JSON"),
        ("param_groups", "[" * 9999, FormatError, "liontool.param_groups is not JSON"),
        ("param_groups", "{}", FormatError, "must be a JSON list of objects"),
        ("param_groups", "[1]", FormatError, "must be a JSON list of objects"),
        ("param_groups", '[{"lr": 1}]', FormatError, "each group .* must list the names"),
        ("param_groups", '[{"params": 3}]', FormatError, "each group .* must list the names"),
        ("param_groups", '[{"params": [3]}]', FormatError, "each group .* must list the names"),
        ("lr_scheduler", '[{"_schedulers": 1}]', FormatError, "_schedulers must be a list"),
        ("lr_scheduler", json.dumps(_nested(50)), LimitError, "nested more than 32 deep"),
        ("provenance", "[", FormatError, "liontool.provenance is not JSON"),
    ],
)
def test_damaged_metadata(written, key, value, error, match):
    """Metadata that breaks the rules of the layout is an error that names the key."""
    optimizer = _optimizer()
    metadata = {**state_file.metadata(optimizer, "Lion 1", {}), f"liontool.{key}": value}
    with pytest.raises(error, match=match):
        written(state_file.tensors(optimizer), metadata)


def test_metadata_that_is_missing(written):
    """Groups are needed, a step is not."""
    optimizer = _optimizer()
    metadata = state_file.metadata(optimizer, "Lion 1", {"step": "many"})
    assert written(state_file.tensors(optimizer), metadata).step is None
    del metadata["liontool.param_groups"]
    with pytest.raises(FormatError, match=r"metadata lacks liontool\.param_groups"):
        written(state_file.tensors(optimizer), metadata)


def test_scheduler_state_of_any_keys():
    """Keys that JSON lacks become text: the state is there for people."""
    fields = {b"a": {2.5: (1, float("nan"))}, None: 1, ("x", 1): 2}
    state = state_file.scheduler_state(Scheduler(Fields(fields)))
    assert json.loads(json.dumps(state, allow_nan=False)) == {
        "b'a'": {"2.5": [1, "nan"]},
        "None": 1,
        "('x', 1)": 2,
    }

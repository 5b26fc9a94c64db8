"""The lens of runs: classes, names, optimizers and schedulers of a checkpoint."""

from __future__ import annotations

import json

import pytest
import torch

from liontool.checkpoint.frameworks import find
from liontool.checkpoint.frameworks.framework import Target
from liontool.checkpoint.frameworks.run import FRAMEWORK
from liontool.checkpoint.source import open_source
from liontool.errors import (
    DamagedError,
    FormatError,
    LayoutError,
    MissingOptimizerError,
    ReadError,
    ResumeError,
)
from support.run_folders import changed_json, saved_run

SCHEDULERS = torch.optim.lr_scheduler
STEP = "step-0000000003"


@pytest.fixture
def run(tmp_path):
    """A run with a scheduler, a second optimizer and an average."""
    return saved_run(
        tmp_path / "exp",
        steps=(3,),
        extras=True,
        scheduler=lambda o: SCHEDULERS.StepLR(o, 10),
    )


@pytest.mark.parametrize("where", ["", STEP])
def test_a_run_and_a_checkpoint_in_it_are_found(run, where):
    """With all that it has: optimizers, schedulers, classes, steps."""
    framework, found = find(open_source(run / where))
    assert framework is FRAMEWORK
    assert (found.framework, found.step, found.epoch) == ("run", 3, 1)
    assert [one.label for one in found.optimizers] == ["optimizer", "extras.critic_optimizer"]
    assert {one.class_name for one in found.optimizers} == {"torch.optim.adamw.AdamW"}
    assert [one.label for one in found.optimizers[0].schedulers] == ["scheduler"]
    assert found.facts["parts"] == (
        "model", "optimizer", "scheduler", "loader", "critic", "critic_optimizer", "ema",
    )  # fmt: skip


def test_parameters_have_names_and_shapes(run):
    """The names are those of run.json, the shapes those of the weights."""
    optimizer = find(open_source(run))[1].optimizers[0]
    assert [group.names for group in optimizer.groups] == [
        ("first.weight", "last.weight"),
        ("first.bias", "norm.weight", "norm.bias"),
    ]
    assert {slot.name: slot.shape for slot in optimizer.slots.values()}["last.weight"] == (2, 6)


@pytest.mark.parametrize(
    "names", [None, [], {}, {"optimizer": None}, {"optimizer": [["a"], ["b", "c", "d"]]},
              {"optimizer": [["first.weight", None], ["b", "c", "d"]]}], ids=str
)  # fmt: skip
def test_names_that_do_not_fit_are_no_names(run, names):
    """Parameters are then told by their positions."""
    changed_json(run / STEP, "run.json", lambda facts: facts | {"param_names": names})
    optimizer = find(open_source(run))[1].optimizers[0]
    assert {slot.name for slot in optimizer.slots.values()} == {None}


def test_an_optimizer_is_named_by_its_place_in_the_run(run):
    """With or without the name of the file."""
    for path in ("extras.critic_optimizer", "state-0.json.extras.critic_optimizer"):
        (optimizer,) = find(open_source(run), optimizer_paths=[path])[1].optimizers
        assert optimizer.label == "extras.critic_optimizer"
    with pytest.raises(LayoutError, match=r"--optimizer extras\.ema leads to"):
        find(open_source(run), optimizer_paths=["extras.ema"])
    with pytest.raises(LayoutError, match="--optimizer nowhere leads nowhere"):
        find(open_source(run), optimizer_paths=["nowhere"])


def test_framework_can_be_asked_for(run, tmp_path):
    """And must fit."""
    assert find(open_source(run), "run")[0] is FRAMEWORK
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x.txt").write_text("")
    with pytest.raises(LayoutError, match=r"looked for a folder of liontool\.resume\.Run with"):
        find(open_source(tmp_path / "other"), "run")


def _facts(**changes):
    return "run.json", lambda facts: facts | changes


def _without(*keys):
    def change(tree):
        *path, last = keys
        for key in path:
            tree = tree[key]
        del tree[last]

    return "state-0.json", change


HOSTILE = {
    "no optimizer": (_without("tree", "optimizer"), None, ""),
    "no position": (_without("tree", "run"), FormatError, "state-0.json is that of step None"),
    "no object": (("run.json", lambda facts: [1]), FormatError, "object with 'liontool.run'"),
    "no version": (("run.json", lambda facts: {"a": 1}), FormatError, "object with 'liontool.run'"),
    "newer": (_facts(**{"liontool.run": 2}), LayoutError, "newer than this liontool"),
    "several processes": (_facts(ranks=2), LayoutError, "2 processes saved it"),
    "no classes": (_facts(classes=None), FormatError, "'classes' must be an object of names"),
    "odd classes": (_facts(classes={"a": 1}), FormatError, "'classes' must be an object of names"),
    "another step": (_facts(step=4), FormatError, r"run\.json is that of step 4, and COMMIT"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_contents_are_refused(run, case):
    """In one line, under a COMMIT that lists just these bytes."""
    (name, change), kind, words = HOSTILE[case]
    changed_json(run / STEP, name, change)
    if kind is None:
        found = find(open_source(run))[1]
        assert [one.label for one in found.optimizers] == ["extras.critic_optimizer"]
        return
    with pytest.raises(kind, match=words) as caught:
        find(open_source(run))
    assert "\n" not in str(caught.value)


def test_a_run_without_an_optimizer(tmp_path):
    """The message lists what there is."""
    run = saved_run(tmp_path / "exp", steps=(3,))
    name, change = _without("tree", "optimizer")
    changed_json(run / STEP, name, change)
    with pytest.raises(MissingOptimizerError, match="holds no optimizer's state, in 'model'"):
        find(open_source(run))


def test_names_and_sizes_are_compared_before_anything_is_read(run):
    """A file that nobody committed is damage."""
    (run / STEP / "extra.pt").write_bytes(b"")
    with pytest.raises(DamagedError, match=r"has 'extra\.pt', which COMMIT does not list"):
        find(open_source(run / STEP))
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        open_source(run)


def test_all_bytes_are_compared_where_that_is_asked(run):
    """Of a checkpoint that is named, and of a run."""
    path = run / STEP / "state-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    open_source(run)
    with pytest.raises(DamagedError, match="bytes are not those that were committed"):
        open_source(run / STEP, deep=True)
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        open_source(run, deep=True)


def test_a_folder_that_cannot_be_read(tmp_path, monkeypatch):
    """Is an error of the system, in one line."""
    monkeypatch.setattr("os.listdir", _refuse)
    monkeypatch.setattr("os.scandir", _refuse)
    with pytest.raises(ReadError, match="Input/output error"):
        open_source(tmp_path)


def _refuse(path="."):
    raise OSError(5, "Input/output error", str(path))


@pytest.mark.parametrize("to_sf", [False, True])
def test_code_names_all_parts_of_the_run(run, tmp_path, to_sf):
    """LionSF gets no scheduler."""
    found = find(open_source(run))[1]
    target = Target("from liontool.optim import LionSF", constant_lr=True) if to_sf else Target()
    text = FRAMEWORK.resume_code(found, target, tmp_path / "out")
    assert "from liontool.resume import Run" in text
    assert ("scheduler=scheduler" in text) is not to_sf
    assert "loader=loader, critic=critic, critic_optimizer=optimizer_2, ema=ema" in text
    compile(text, "script", "exec")


def test_json_of_names_that_were_changed(run):
    """What a plan writes into run.json fits the groups again."""
    from liontool.edit import edit_checkpoint

    edit_checkpoint(run, ["drop:last.weight", "rename:first.=begin."])
    folder = run.with_name("exp.edited") / STEP
    facts = json.loads((folder / "run.json").read_text())
    assert facts["param_names"]["optimizer"] == [
        ["begin.weight"],
        ["begin.bias", "norm.weight", "norm.bias"],
    ]
    optimizer = find(open_source(folder))[1].optimizers[0]
    assert [group.names for group in optimizer.groups] == [
        ("begin.weight",),
        ("begin.bias", "norm.weight", "norm.bias"),
    ]

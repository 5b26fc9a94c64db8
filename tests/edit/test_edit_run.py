"""Edits of the folder of a run and of the checkpoints in it."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file

from liontool.checkpoint.frameworks import find
from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.lock import RunLock
from liontool.checkpoint.source import open_source
from liontool.edit import edit_checkpoint
from liontool.errors import (
    DamagedError,
    EditError,
    LockedError,
    OutputExistsError,
    PublishError,
)
from liontool.resume.encoding import decode_state
from support.run_folders import saved_run

SCHEDULERS = torch.optim.lr_scheduler
OLD, NEW = "step-0000000005", "step-0000000009"


@pytest.fixture
def run(tmp_path):
    """Two checkpoints of a run with a scheduler, a second optimizer and an average."""
    return saved_run(
        tmp_path / "exp",
        steps=(5, 9),
        extras=True,
        scheduler=lambda o: SCHEDULERS.CosineAnnealingLR(o, 50, eta_min=0.001),
    )


def state_of(folder):
    """The state, as Run reads it."""
    check(folder)
    tree = json.loads((folder / "state-0.json").read_text())["tree"]
    tensors = load_file(folder / "state-0.safetensors")
    return decode_state(tree, tensors.__getitem__, {})


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_copy_is_a_run_of_its_own(run):
    """The newest checkpoint, edited, under a COMMIT of its own; the run is left alone."""
    before = contents(run)
    report = edit_checkpoint(run, ["lr=x0.5"], optimizers=["optimizer"])
    assert report.output == str(run.with_name("exp.edited"))
    assert report.source == str(run / NEW)
    (made,) = checkpoints(run.with_name("exp.edited"))
    assert made.name == NEW
    assert "liontool.json" in check(made).files
    assert contents(run) == before


def test_groups_and_schedulers_change_together(run):
    """Each number in its place, and everything else stays as it was."""
    before = state_of(run / NEW)
    edit_checkpoint(run, ["lr=x0.5"], optimizers=["optimizer"])
    after = state_of(run.with_name("exp.edited") / NEW)
    pairs = zip(
        before["optimizer"]["param_groups"], after["optimizer"]["param_groups"], strict=True
    )
    for old, new in pairs:
        assert new == old | {"lr": old["lr"] / 2, "initial_lr": old["initial_lr"] / 2}
    old, new = before["scheduler"], after["scheduler"]
    assert new["base_lrs"] == [rate / 2 for rate in old["base_lrs"]]
    assert new["eta_min"] == old["eta_min"] / 2
    assert after["extras"]["critic_optimizer"]["param_groups"][0]["lr"] == 0.002
    assert after["loader"] == before["loader"]
    assert after["generators"]["python"] == before["generators"]["python"]
    assert torch.equal(after["model"]["last.weight"], before["model"]["last.weight"])


def test_tensors_stay_where_no_word_names_one(run):
    """The large file is copied byte for byte."""
    edit_checkpoint(run, ["weight_decay=0.2"], optimizers=["optimizer"])
    old, new = run / NEW, run.with_name("exp.edited") / NEW
    for name in ("state-0.safetensors", "run.json"):
        assert (new / name).read_bytes() == (old / name).read_bytes()


def test_states_can_be_dropped_and_cast(run):
    """They go from the tree and from the file."""
    words = ["exp_avg:bf16", "drop:extras.critic_optimizer.state.*"]
    edit_checkpoint(run, words)
    after = state_of(run.with_name("exp.edited") / NEW)
    assert after["optimizer"]["state"][0]["exp_avg"].dtype == torch.bfloat16
    assert after["extras"]["critic_optimizer"]["state"] == {}
    names = load_file(run.with_name("exp.edited") / NEW / "state-0.safetensors")
    assert not [name for name in names if name.startswith("extras.critic_optimizer")]


def test_weights_and_parameters_are_renamed_together(run):
    """In the model, in its average, and among the names of the optimizer's parameters."""
    edit_checkpoint(run, ["rename:first.=begin."])
    folder = run.with_name("exp.edited") / NEW
    after = state_of(folder)
    assert list(after["model"])[:2] == ["begin.weight", "begin.bias"]
    assert "begin.weight" in after["extras"]["ema"]["weights"]
    names = json.loads((folder / "run.json").read_text())["param_names"]["optimizer"]
    assert names[0][0] == "begin.weight"


# --- in place -----------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["", NEW])
def test_in_place_the_checkpoint_is_exchanged(run, where):
    """The one before stays beside it under a name that no start takes for a checkpoint."""
    before = contents(run / NEW)
    report = edit_checkpoint(run / where, ["lr=x0.5"], optimizers=["optimizer"], in_place=True)
    assert report.backup == str(run / f"{NEW}.orig")
    kept = {path.name: data for path, data in contents(run / f"{NEW}.orig").items()}
    assert kept == {path.name: data for path, data in before.items()}
    assert [path.name for path in checkpoints(run)] == [NEW, OLD]
    source = open_source(run, deep=True)
    assert source.choice.refused == ()
    assert find(source)[1].optimizers[0].groups[0].fields["lr"] == pytest.approx(
        state_of(run / f"{NEW}.orig")["optimizer"]["param_groups"][0]["lr"] / 2
    )


def test_in_place_without_a_backup(run):
    """Nothing of the old one is left."""
    edit_checkpoint(run, ["lr=x0.5"], in_place=True, backup=False)
    assert sorted(path.name for path in run.iterdir()) == ["run.lock", OLD, NEW]


def test_an_edit_can_follow_an_edit(run):
    """Both are in the record, which COMMIT lists once."""
    for word in ("lr=x0.5", "lr=x4"):
        edit_checkpoint(run, [word], in_place=True, backup=False)
    record = json.loads((run / NEW / "liontool.json").read_text())
    assert [one["words"] for one in record["edits"]] == [["lr=x0.5"], ["lr=x4"]]
    assert record["edits"][0]["source"] == f"exp/{NEW}"
    check(run / NEW)


@pytest.mark.parametrize("where", ["", NEW])
def test_in_place_is_refused_while_a_run_trains_there(run, where):
    """It would go on with what it has in memory; nothing is changed."""
    lock = RunLock()
    lock.acquire(run)
    before = contents(run / NEW)
    try:
        with pytest.raises(LockedError, match="this process trains in it already"):
            edit_checkpoint(run / where, ["lr=x0.5"], in_place=True)
        edit_checkpoint(run / where, ["lr=x0.5"])
    finally:
        lock.release()
    assert contents(run / NEW) == before


@pytest.mark.parametrize("name", ["state-0.safetensors", "state-0.json", "run.json"])
def test_a_part_of_a_checkpoint_is_not_edited_in_place(run, name):
    """It would no longer be what COMMIT lists."""
    with pytest.raises(EditError, match=f"edit the whole: liontool edit {run / NEW}"):
        edit_checkpoint(run / NEW / name, ["drop:*"], in_place=True)
    check(run / NEW)


# --- which checkpoint, and where to -------------------------------------------------------------


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_damage_is_never_committed_anew(run):
    """Every byte is compared before: the newest good checkpoint is edited."""
    flip(run / NEW / "state-0.safetensors")
    report = edit_checkpoint(run, ["lr=x0.5"])
    (notice,) = (one for one in report.notices if one.id == "passed-over")
    assert notice.text.startswith(f"{NEW}: state-0.safetensors is damaged")
    assert f"{OLD} is edited in its place" in notice.text
    with pytest.raises(DamagedError, match="is damaged"):
        edit_checkpoint(run / NEW, ["lr=x0.5"], in_place=True)


@pytest.mark.parametrize("where", ["exp", f"exp/{NEW}"])
def test_output_cannot_be_the_source(run, tmp_path, where):
    """The way to change it is named."""
    with pytest.raises(PublishError, match="is the source itself; to change it there: --in-place"):
        edit_checkpoint(run, ["lr=x0.5"], output=tmp_path / where)


def test_output_cannot_lie_in_the_run(run):
    """A start would take it for a checkpoint."""
    with pytest.raises(PublishError, match="lies inside the source"):
        edit_checkpoint(run, ["lr=x0.5"], output=run / "step-0000000010")


def test_force_replaces_no_run_that_was_trained(run):
    """Only what an edit or a conversion wrote."""
    edit_checkpoint(run, ["lr=x0.5"])
    edit_checkpoint(run, ["lr=x0.5"], force=True)
    saved_run(run.with_name("exp.edited"), steps=(12,))
    with pytest.raises(OutputExistsError, match="that liontool did not write"):
        edit_checkpoint(run, ["lr=x0.5"], force=True)

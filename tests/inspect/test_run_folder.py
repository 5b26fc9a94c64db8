"""inspect, verify and diff of the folder of a run and of the checkpoints in it."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch

from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.errors import DamagedError, FormatError, ResumeError, UnfinishedError
from liontool.inspect.diff import diff
from liontool.inspect.fields import FieldReader
from liontool.inspect.statistics import statistics
from liontool.inspect.summary import summarise
from liontool.inspect.tensors import list_tensors
from liontool.inspect.verify import verify
from support.run_folders import Net, changed_json, resealed, saved_run

SCHEDULERS = torch.optim.lr_scheduler
OLD, NEW = "step-0000000005", "step-0000000009"


@pytest.fixture
def run(tmp_path):
    """Two checkpoints of a run with everything."""
    return saved_run(
        tmp_path / "exp",
        steps=(5, 9),
        extras=True,
        scheduler=lambda o: SCHEDULERS.CosineAnnealingLR(o, 50),
    )


def flip(path, where=0.5):
    """One bit of a file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 4
    path.write_bytes(data)


def errors(found):
    return [(one.id, one.where) for one in found.findings if one.severity == "error"]


# --- inspect ------------------------------------------------------------------------------------


def test_inspect_shows_the_newest_checkpoint(run):
    """Under its own path, with both optimizers and the scheduler of the first."""
    found = summarise(run)
    assert found.path == str(run / NEW)
    assert (found.framework, found.step, found.epoch) == ("run", 9, 1)
    first, second = found.optimizers
    assert (first.label, first.kind, second.label) == (
        "optimizer", "AdamW", "extras.critic_optimizer"
    )  # fmt: skip
    assert [one.kind for one in first.schedulers] == ["CosineAnnealingLR"]
    assert found.facts["parts"][-1] == "ema"
    assert ("one-of-run", NEW) in [(one.id, one.where) for one in found.findings]


def test_inspect_shows_a_checkpoint_that_is_named(run):
    """Without a word about the others."""
    found = summarise(run / OLD)
    assert (found.path, found.step, found.findings) == (str(run / OLD), 5, ())


def test_tensors_have_the_names_of_the_parameters(run):
    """Weights and state, each with the file that holds them."""
    found = list_tensors(run)
    names = [tensor.name for tensor in found.tensors]
    assert {"first.weight", "optimizer.state.first.weight.exp_avg"} <= set(names)
    assert {tensor.file for tensor in found.tensors} == {"state-0.safetensors"}
    other = [tensor.name for tensor in found.tensors if tensor.role == "other"]
    assert other == ["state-0.json.generators.numpy.1", "state-0.json.generators.torch"]


def test_statistics_and_fields(run):
    """Values are read through the tree, wherever they lie."""
    assert statistics(run).matched == len(list_tensors(run).tensors)
    reader = FieldReader(run, None, ("optimizer",))
    assert reader.value("step") == 9
    assert reader.value("groups.1.weight_decay") == 0


def test_inspect_names_newer_checkpoints_that_it_passed_over(run):
    """One without COMMIT, here."""
    (run / NEW / COMMIT).unlink()
    found = summarise(run)
    assert found.path == str(run / OLD)
    (finding,) = (one for one in found.findings if one.id == "passed-over")
    assert finding.where == NEW
    assert "has no COMMIT" in finding.text
    assert f"{OLD} is looked at in its place" in finding.text


def test_inspect_refuses_what_is_damaged(run):
    """As far as names and sizes tell; a run without a good checkpoint has none to look at."""
    with (run / NEW / "run.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(DamagedError, match=r"run\.json is damaged"):
        summarise(run / NEW)
    shutil.rmtree(run / OLD)
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        summarise(run)


def test_unfinished_checkpoint(run):
    """One without COMMIT is not looked at, and the line says so."""
    (run / NEW / COMMIT).unlink()
    with pytest.raises(UnfinishedError, match="has no COMMIT"):
        summarise(run / NEW)


# --- verify -------------------------------------------------------------------------------------


def test_verify_reads_every_byte(run):
    """Of the newest, and says which that is."""
    found = verify(run)
    assert found.passed(strict=True)
    assert found.path == str(run / NEW)
    assert [one.id for one in found.findings] == ["one-of-run"]
    sizes = sum(path.stat().st_size for path in (run / NEW).iterdir())
    assert found.bytes_read > sizes - (run / NEW / COMMIT).stat().st_size


@pytest.mark.parametrize("name", ["state-0.safetensors", "state-0.json", "run.json"])
def test_verify_names_the_damaged_file(run, name):
    """Whichever bit is wrong, also one that no reader looks at."""
    flip(run / NEW / name, 0.999)
    assert ("damaged", name) in errors(verify(run))


def test_verify_without_values_compares_names_and_sizes(run):
    """The tensors are left alone."""
    flip(run / NEW / "state-0.safetensors", 0.999)
    assert verify(run, values=False).passed()


def test_verify_names_everything_that_is_wrong(run):
    """A missing file, a new one and a longer one, in one go."""
    folder = run / NEW
    (folder / "run.json").unlink()
    (folder / "notes.txt").write_text("mine")
    with (folder / "state-0.json").open("ab") as file:
        file.write(b" ")
    found = verify(folder)
    assert set(errors(found)) == {
        ("damaged", "run.json"), ("damaged", "notes.txt"), ("damaged", "state-0.json"),
    }  # fmt: skip
    assert "not-checked" in [one.id for one in found.findings]


def test_verify_of_a_damaged_commit(run):
    """It is the one that has no hash but its own."""
    flip(run / NEW / COMMIT)
    assert errors(verify(run / NEW)) == [("damaged", "")]
    shutil.copy("/dev/null", run / NEW / COMMIT)
    assert errors(verify(run / NEW)) == [("damaged", "")]


def test_verify_of_an_unfinished_checkpoint(run):
    """It lacks what is written last."""
    (run / NEW / COMMIT).unlink()
    assert ("unfinished", "") in errors(verify(run / NEW))


def test_verify_of_a_run_whose_newest_is_damaged(run):
    """An older one is looked at, and the damage is an error all the same."""
    (run / NEW / "run.json").write_text("{}")
    found = verify(run)
    assert (found.path, errors(found)) == (str(run / OLD), [("passed-over", NEW)])


def test_quarantined_checkpoints_are_named(run):
    """They are good to know of."""
    (run / "quarantine").mkdir()
    os.rename(run / NEW, run / "quarantine" / NEW)
    (finding,) = (one for one in verify(run).findings if one.id == "quarantined")
    assert NEW in finding.text


def test_links_in_a_checkpoint_are_damage(run):
    """Even to a file with the right bytes."""
    folder = run / NEW
    os.rename(folder / "run.json", run / "elsewhere.json")
    (folder / "run.json").symlink_to("../elsewhere.json")
    assert ("damaged", "run.json") in errors(verify(folder))


def test_steps_that_do_not_agree(run):
    """COMMIT, run.json and the state speak of one step."""
    changed_json(run / NEW, "run.json", lambda facts: facts | {"step": 10})
    with pytest.raises(FormatError, match=r"run\.json is that of step 10, and COMMIT that of"):
        summarise(run / NEW)


def test_findings_of_state_are_those_of_every_framework(run):
    """NaN in a weight, by its name."""
    folder = run / NEW
    from safetensors.torch import load_file, save_file

    tensors = load_file(folder / "state-0.safetensors")
    tensors["model.last.weight"][0, 0] = torch.nan
    save_file(tensors, folder / "state-0.safetensors", {"format": "pt"})
    found = verify(resealed(folder))
    assert [(kind, "last.weight" in where) for kind, where in errors(found)] == [
        ("nonfinite", True)
    ]


# --- diff ---------------------------------------------------------------------------------------


def test_a_run_is_the_same_as_its_newest_checkpoint(run):
    """Bit for bit."""
    assert diff(run, run / NEW).same


def test_two_checkpoints_of_a_run(run):
    """They differ in steps and values, and in nothing else."""
    found = diff(run / OLD, run)
    assert not found.structure_differs
    assert "step" in [one.field for one in found.fields]
    assert (found.a.path, found.b.path) == (str(run / OLD), str(run / NEW))


def test_two_runs(run, tmp_path):
    """Of other options."""
    other = saved_run(tmp_path / "other", steps=(9,), seed=1)
    found = diff(run, other)
    assert not found.same
    assert found.only_a
    assert not found.only_b


def test_weights_of_a_run_against_a_plain_file(run, tmp_path):
    """A checkpoint of whatever kind has the same weights."""
    model = Net()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    found = diff(run, tmp_path / "model.pt", filters=["first.*"])
    assert {one.name for one in found.tensors} == {"first.weight", "first.bias"}


def test_json_of_the_summary(run):
    """It can be written, whatever the tree holds."""
    assert json.loads(json.dumps(summarise(run).to_dict()))["framework"] == "run"

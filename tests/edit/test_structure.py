"""Words about names: what they match, what they leave consistent, what they refuse."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from liontool import convert_checkpoint, edit_checkpoint
from liontool.edit import EditReport
from liontool.errors import EditError, LayoutError
from liontool.inspect.opening import opened
from support.edited_runs import forward, load, network, save_plain, save_shards, stepped


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A plain checkpoint with names of parameters."""
    return save_plain(tmp_path / "run.ckpt")


def edited(path: Path, *words: str, **options: Any) -> tuple[EditReport, Any]:
    report = edit_checkpoint(path, words, **options)
    return report, load(Path(report.output))


def kinds(report: EditReport) -> set[tuple[str, str, Any, Any]]:
    return {(c.kind, c.where, c.before, c.after) for c in report.changes}


def names(state: Any) -> list[str]:
    return [name for group in state["optimizer"]["param_groups"] for name in group["param_names"]]


# --- rename -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "old", "new"),
    [
        ("rename:layers=blocks", "layers.0.weight", "blocks.0.weight"),
        ("rename:layers.=", "layers.0.weight", "0.weight"),
        ("rename:layers.*.weight=h.*.w", "layers.1.weight", "h.1.w"),
        ("rename:head.bias=b", "head.bias", "b"),
        ("rename:*=module.*", "head.bias", "module.head.bias"),
    ],
)
def test_a_parameter_is_renamed_everywhere(plain: Path, word: str, old: str, new: str) -> None:
    """In the weights and in `param_names`; tensors and order stay."""
    before = load(plain)
    report, after = edited(plain, word)
    assert new in after["model"]
    assert old not in after["model"]
    assert new in names(after)
    assert old not in names(after)
    assert len(after["model"]) == len(before["model"])
    for one, other in zip(before["model"].values(), after["model"].values(), strict=True):
        assert torch.equal(one, other)
    assert before["optimizer"]["state"].keys() == after["optimizer"]["state"].keys()
    assert any(change.kind == "name" for change in report.changes)


def test_words_are_applied_from_left_to_right(plain: Path) -> None:
    """A later word sees the names that an earlier one gave."""
    _, after = edited(plain, "rename:layers=blocks", "rename:blocks.0=first", "drop:first.bias")
    assert sorted(after["model"]) == [
        "blocks.1.bias",
        "blocks.1.weight",
        "first.weight",
        "head.bias",
        "head.weight",
    ]
    assert "first.bias" not in names(after)


def test_names_may_change_places(plain: Path) -> None:
    """A swap by way of a third name is no collision."""
    before = load(plain)["model"]
    words = ("rename:layers.0=x", "rename:layers.1=layers.0", "rename:x=layers.1")
    _, after = edited(plain, *words)
    assert torch.equal(after["model"]["layers.0.weight"], before["layers.1.weight"])
    assert torch.equal(after["model"]["layers.1.weight"], before["layers.0.weight"])


def test_two_tensors_of_one_name_are_refused(plain: Path) -> None:
    """Both are named, and no file appears."""
    fault = "'layers.0.weight' and 'layers.1.weight' would both be called 'layers.1.weight'"
    with pytest.raises(EditError, match=fault):
        edit_checkpoint(plain, ["rename:layers.0=layers.1"])
    assert [path.name for path in plain.parent.iterdir()] == ["run.ckpt"]


def test_a_name_must_be_left(plain: Path) -> None:
    """The whole of a name is not cut away."""
    with pytest.raises(EditError, match=r"'head.bias' would have no name left"):
        edit_checkpoint(plain, ["rename:head.bias="])


@pytest.mark.parametrize("word", ["rename:layer.0.weight=x", "drop:layer.0.*", "keep:layer.0.*"])
def test_a_name_that_nothing_has_is_an_error_with_those_near_it(plain: Path, word: str) -> None:
    """The message helps with a slip of the pen."""
    with pytest.raises(EditError, match=r"nothing is called 'layer\.0.*there is .*layers\."):
        edit_checkpoint(plain, [word])


def test_every_fault_is_told_at_once(plain: Path) -> None:
    """All words are checked before anything is done."""
    with pytest.raises(EditError, match=r"'drop:x': nothing .*; 'meta.a=b': .* is a torch zip"):
        edit_checkpoint(plain, ["drop:x", "head", "meta.a=b"][::2])


def test_state_by_name_is_renamed_too(tmp_path: Path) -> None:
    """Where state and groups go by name, as in a full state dict, the keys change."""
    model = network()
    optimizer, _ = stepped(model)
    state = optimizer.state_dict()
    named = dict(enumerate(name for g in state["param_groups"] for name in g["param_names"]))
    by_name = {
        "state": {named[key]: value for key, value in state["state"].items()},
        "param_groups": [
            {**g, "params": [named[key] for key in g["params"]]} for g in state["param_groups"]
        ],
    }
    path = tmp_path / "named.pt"
    torch.save({"optimizer": by_name, "model": model.state_dict()}, path)
    _, after = edited(path, "rename:layers=blocks", "drop:blocks.1.*")
    state = after["optimizer"]
    assert sorted(state["state"]) == [
        "blocks.0.bias",
        "blocks.0.weight",
        "head.bias",
        "head.weight",
    ]
    assert [g["params"] for g in state["param_groups"]] == [
        ["blocks.0.weight", "head.weight"],
        ["blocks.0.bias", "head.bias"],
    ]


# --- drop and keep ------------------------------------------------------------------------------


def test_a_parameter_goes_with_all_that_is_its_own(plain: Path) -> None:
    """Weights, state, and its place in the group; a model without it loads and steps."""
    report, after = edited(plain, "drop:head.*")
    assert sorted(after["model"]) == [
        f"layers.{i}.{part}" for i in (0, 1) for part in ("bias", "weight")
    ]
    assert names(after) == [f"layers.{i}.{part}" for part in ("weight", "bias") for i in (0, 1)]
    assert len(after["optimizer"]["state"]) == 4
    assert ("group", "groups.0.params", 3, 2) in kinds(report)
    model = network()["layers"]  # type: ignore[index]
    optimizer = torch.optim.AdamW(
        [{"params": [m.weight for m in model]}, {"params": [m.bias for m in model]}]
    )
    optimizer.load_state_dict(after["optimizer"])
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    assert optimizer.state[model[0].weight]["step"] == 4


def test_state_alone_goes_and_its_parameters_stay(plain: Path) -> None:
    """The groups list them as before, and torch's loader and AdamW start them anew."""
    before = load(plain)
    report, after = edited(plain, "drop:state.head.*")
    assert names(after) == names(before)
    assert sorted(after["model"]) == sorted(before["model"])
    assert len(after["optimizer"]["state"]) == 4
    assert report.notices == ()
    model = network()
    optimizer, _ = stepped(model)
    optimizer.load_state_dict(after["optimizer"])
    optimizer.zero_grad()
    forward(model).backward()
    optimizer.step()
    assert optimizer.state[model["head"].weight]["step"] == 1  # type: ignore[index]
    assert optimizer.state[model["layers"][0].weight]["step"] == 4  # type: ignore[index]


def test_what_is_left_of_a_state_is_not_a_count_alone(plain: Path) -> None:
    """Both moments are gone, so is `step`."""
    _, after = edited(plain, "drop:state.*.exp_avg*")
    assert after["optimizer"]["state"] == {}


def test_half_a_state_is_told(plain: Path) -> None:
    """AdamW without its second moment stops at the next step; the edit is made all the same."""
    report, after = edited(plain, "drop:state.*.exp_avg_sq")
    assert set(after["optimizer"]["state"][0]) == {"step", "exp_avg"}
    assert [notice.id for notice in report.notices] == ["partial-state"]
    assert "exp_avg_sq is gone and the rest of the state is not" in report.notices[0].text


def test_an_empty_group_stays(plain: Path) -> None:
    """Loaders count groups."""
    report, after = edited(plain, "drop:*.bias")
    assert [len(g["params"]) for g in after["optimizer"]["param_groups"]] == [3, 0]
    assert [notice.id for notice in report.notices] == ["empty-group"]
    assert "group 1 has no parameters any more" in report.notices[0].text


def test_keep_is_drop_of_all_else(plain: Path) -> None:
    """Weights, state and groups are those of the parameters that stay."""
    _, kept = edited(plain, "keep:layers.*")
    _, dropped = edited(plain, "drop:head.*", output=plain.with_name("dropped.ckpt"))
    assert sorted(kept["model"]) == sorted(dropped["model"])
    assert kept["optimizer"]["param_groups"] == dropped["optimizer"]["param_groups"]
    assert kept["optimizer"]["state"].keys() == dropped["optimizer"]["state"].keys()
    assert kept["scheduler"] == dropped["scheduler"]


def test_keep_of_state_leaves_no_weights(plain: Path) -> None:
    """The groups stay, since a pattern of state says nothing of them."""
    before = load(plain)
    _, after = edited(plain, "keep:state.*")
    assert after["model"] == {}
    assert names(after) == names(before)
    assert after["optimizer"]["state"].keys() == before["optimizer"]["state"].keys()


def test_parameters_without_names_are_not_guessed(tmp_path: Path) -> None:
    """Weights can go, and a notice says that groups still list all; `keep` is refused."""
    path = save_plain(tmp_path / "run.ckpt", named=False)
    report, after = edited(path, "drop:head.*")
    assert [notice.id for notice in report.notices] == ["unnamed-parameters"]
    assert "names:MODEL_FILE" in report.notices[0].text
    assert [len(g["params"]) for g in after["optimizer"]["param_groups"]] == [3, 3]
    with pytest.raises(EditError, match="have no names here; attach them first: names:MODEL_FILE"):
        edit_checkpoint(path, ["keep:head.*"])
    _, after = edited(path, "drop:state.0.*", output=tmp_path / "state.ckpt")
    assert sorted(after["optimizer"]["state"]) == [1, 2, 3, 4, 5]


def test_storages_that_nothing_needs_go(plain: Path) -> None:
    """A file without a tensor is shorter by it."""
    report, _ = edited(plain, "drop:state.*")
    assert report.bytes_after < report.bytes_before - 6 * 64
    assert Path(report.output).stat().st_size == report.bytes_after


@pytest.mark.parametrize("legacy", [True, False])
def test_legacy_files_are_edited_too(tmp_path: Path, legacy: bool) -> None:
    """The container stays what it is."""
    path = save_plain(tmp_path / "run.pt", _use_new_zipfile_serialization=not legacy)
    report, after = edited(path, "rename:layers=blocks", "drop:head.*")
    assert sorted(after["model"])[0] == "blocks.0.bias"
    assert len(after["model"]) == 4
    assert report.container == ("torch legacy" if legacy else "torch zip")


# --- safetensors --------------------------------------------------------------------------------


def test_a_model_alone_is_edited(tmp_path: Path) -> None:
    """No optimizer is needed for weights and metadata; the library reads the result."""
    tensors = network().state_dict()
    path = tmp_path / "model.safetensors"
    save_file(tensors, path, {"format": "pt"})
    report = edit_checkpoint(path, ["rename:layers=h", "drop:head.*", "meta.author=me"])
    found = load_file(report.output)
    assert sorted(found) == [f"h.{i}.{part}" for i in (0, 1) for part in ("bias", "weight")]
    assert torch.equal(found["h.0.bias"], tensors["layers.0.bias"])
    facts = opened(report.output).source.document().facts
    assert facts["author"] == "me"
    assert facts["format"] == "pt"
    assert json.loads(facts["liontool.provenance"])["edits"][0]["words"][0] == "rename:layers=h"


def test_metadata_can_be_taken_away(tmp_path: Path) -> None:
    """An empty value takes the key away; one that is not there is an error."""
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path, {"format": "pt", "note": "x"})
    report = edit_checkpoint(path, ["meta.note="])
    assert "note" not in opened(report.output).source.document().facts
    assert kinds(report) == {("metadata", "meta.note", "x", None)}
    with pytest.raises(EditError, match="there is no 'notes' to take away; there is format, note"):
        edit_checkpoint(path, ["meta.notes="])


def test_metadata_of_liontool_is_not_edited_as_text(tmp_path: Path) -> None:
    """Words say what is meant; JSON by hand could be anything."""
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path)
    with pytest.raises(EditError, match=r"'liontool.param_groups' is liontool's own; .*lr=3e-5"):
        edit_checkpoint(path, ["meta.liontool.param_groups=[]"])


def test_metadata_of_a_folder_has_no_file(tmp_path: Path) -> None:
    """The message says what to name."""
    save_shards(tmp_path / "model")
    with pytest.raises(EditError, match="model is a folder; name the safetensors file in it"):
        edit_checkpoint(tmp_path / "model", ["meta.a=b"])


def test_words_that_need_no_optimizer_say_why_there_is_none(tmp_path: Path) -> None:
    """A framework that was asked for must be there."""
    path = tmp_path / "model.safetensors"
    save_file(network().state_dict(), path)
    with pytest.raises(LayoutError, match="looked for an optimizer"):
        edit_checkpoint(path, ["meta.a=b"], framework="plain")


def test_a_state_file_is_edited(plain: Path) -> None:
    """Tensors and groups of liontool's own layout go by name together."""
    state = plain.with_name("state.safetensors")
    convert_checkpoint(plain, lr_ratio=3, output=state)
    report = edit_checkpoint(state, ["rename:layers=blocks", "drop:head.bias"])
    found = opened(report.output)
    assert found.checkpoint is not None
    (optimizer,) = found.checkpoint.optimizers
    assert [group.params for group in optimizer.groups] == [
        ("blocks.0.weight", "blocks.1.weight", "head.weight"),
        ("blocks.0.bias", "blocks.1.bias"),
    ]
    assert set(optimizer.slots) == {key for group in optimizer.groups for key in group.params}
    assert ("name", "layers.{0-1}.weight", "layers.{0-1}.weight", "blocks.{0-1}.weight") in kinds(
        report
    )


def test_a_momentum_that_is_gone_is_no_average(plain: Path) -> None:
    """liontool's Lion starts anew in a group without state, not as after ten gradients."""
    lion = plain.with_name("lion.ckpt")
    convert_checkpoint(plain, lr_ratio=3, output=lion)
    _, after = edited(lion, "drop:state.*.bias.*")
    horizons = [group["horizon"] for group in after["optimizer"]["param_groups"]]
    assert horizons == [pytest.approx(10.0), None]


def test_shards_and_their_index_change_together(tmp_path: Path) -> None:
    """Every shard with a change is written anew, and the index lists what is in them."""
    folder = tmp_path / "model"
    tensors = save_shards(folder)
    report = edit_checkpoint(folder, ["rename:layers=h", "drop:head.bias"])
    output = Path(report.output)
    assert output.name == "edited-model"
    index = json.loads((output / "model.safetensors.index.json").read_text())
    found = {name: load_file(output / file)[name] for name, file in index["weight_map"].items()}
    assert sorted(found) == sorted(
        name.replace("layers", "h") for name in tensors if name != "head.bias"
    )
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in found.values())
    record = json.loads((output / "liontool.json").read_text())
    assert record["edits"][0]["words"] == ["rename:layers=h", "drop:head.bias"]


def test_an_index_alone_is_refused(tmp_path: Path) -> None:
    """One file cannot stand for several."""
    folder = tmp_path / "model"
    save_shards(folder)
    with pytest.raises(LayoutError, match=r"is the index of several files.*edit the folder"):
        edit_checkpoint(folder / "model.safetensors.index.json", ["rename:layers=h"])

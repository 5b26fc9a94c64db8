"""Without its state an optimizer starts anew under all that the file says."""

from __future__ import annotations

import torch

from liontool import convert_checkpoint, edit_checkpoint
from liontool.checkpoint.source import open_source
from support.edited_runs import forward, load, network, save_plain


def test_strip(tmp_path):
    """State goes; groups, schedulers, weights and the step stay, and so does the provenance."""
    run = save_plain(tmp_path / "run.pt")
    report = edit_checkpoint(run, ["strip"])
    before, after = load(run), load(report.output)
    assert after["optimizer"] == {**before["optimizer"], "state": {}}
    assert (after["scheduler"], after["step"]) == (before["scheduler"], 3)
    assert [notice.id for notice in report.notices] == ["starts-anew"]
    assert report.provenance["edits"][0]["words"] == ["strip"]
    assert report.bytes_after < report.bytes_before


def test_goes_on(tmp_path):
    """torch's own loaders take it, and the next step is AdamW's first one at that rate."""
    run = save_plain(tmp_path / "run.pt", named=False)
    tree = load(edit_checkpoint(run, ["strip"]).output)
    moved = []
    for group in ({"lr": tree["optimizer"]["param_groups"][0]["lr"]}, None):
        model = network()
        optimizer = torch.optim.AdamW([
            {"params": [p for n, p in model.named_parameters() if n.endswith("bias") == is_bias]}
            for is_bias in (False, True)
        ], **(group or {}), weight_decay=0.0)  # fmt: skip
        if group is None:
            for one in tree["optimizer"]["param_groups"]:
                one["weight_decay"] = 0.0
            optimizer.load_state_dict(tree["optimizer"])
        forward(model).backward()
        optimizer.step()
        moved.append([param.detach().clone() for param in model.parameters()])
    assert all(map(torch.equal, *moved))


def test_step_in_state(tmp_path):
    """Where the state alone told the step that is said."""
    run = save_plain(tmp_path / "run.pt")
    torch.save(load(run)["optimizer"], tmp_path / "bare.pt")
    report = edit_checkpoint(tmp_path / "bare.pt", ["strip"])
    assert [notice.id for notice in report.notices] == ["starts-anew", "step-in-state"]
    assert "that 3 steps were made stood in the state alone" in report.notices[1].text


def test_state_file(tmp_path):
    """A state file without tensors is still one that everybody reads."""
    from safetensors import safe_open

    run = save_plain(tmp_path / "run.pt")
    state = convert_checkpoint(run, lr_ratio=3, output=tmp_path / "state.safetensors").output
    report = edit_checkpoint(state, ["strip"])
    with safe_open(report.output, "pt") as file:
        assert list(file.keys()) == []
        assert "liontool.param_groups" in file.metadata()
    assert len(open_source(report.output).document().tree) == 0

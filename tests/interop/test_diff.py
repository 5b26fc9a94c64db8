"""Checkpoints of real frameworks compared with each other and with their conversions."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

import liontool
from liontool.inspect.diff import Diff, diff

pytestmark = [
    pytest.mark.interop,
    pytest.mark.filterwarnings("default"),  # Lightning warns about itself
]
RATIO = 3


def verdicts(found: Diff, role: str) -> set[str]:
    return {one.verdict for one in found.tensors if one.role == role}


def check_conversion(found: Diff) -> None:
    """Rates divided wherever they are, nothing but the second moment and the step gone."""
    rates = {one.field for one in found.fields if one.factor == pytest.approx(1 / RATIO)}
    assert {"lr", "initial_lr", "base_lrs", "_last_lr"} <= rates
    assert {one.name.rpartition(".")[2] for one in found.only_a} == {"exp_avg_sq", "step"}
    assert not found.only_b
    assert verdicts(found, "state") == {"identical"}


@pytest.mark.skipif(find_spec("lightning") is None, reason="needs lightning")
def test_lightning(tmp_path: Path) -> None:
    """Lightning's file against its conversion, in both containers, and against a plain file."""
    from support.lightning_runs import train_adamw

    path, _ = train_adamw(tmp_path / "run", "sequential")
    for name in ("lion.ckpt", "lion.safetensors"):
        liontool.convert_checkpoint(path, lr_ratio=RATIO, output=tmp_path / name)
    check_conversion(diff(path, tmp_path / "lion.ckpt"))
    both = diff(tmp_path / "lion.ckpt", tmp_path / "lion.safetensors", filters=["state.*"])
    assert (both.a.framework, both.b.framework) == ("lightning", "liontool-state")
    assert both.same
    assert len(both.tensors) == 4
    state = torch.load(path, weights_only=False)
    plain = {
        "model": {name.replace("body.", "module."): w for name, w in state["state_dict"].items()},
        "optimizer": state["optimizer_states"][0],
        "scheduler": state["lr_schedulers"][0],
        "step": 12,
    }
    torch.save(plain, tmp_path / "plain.pt")
    found = diff(path, tmp_path / "plain.pt", renames=["body=module"])
    assert (found.fields, found.b.framework) == ((), "plain")
    assert verdicts(found, "weight") == verdicts(found, "state") == {"identical"}
    assert {one.role for one in found.only_a} <= {"other"}


@pytest.mark.skipif(find_spec("transformers") is None, reason="needs transformers")
def test_trainer(tmp_path: Path) -> None:
    """Trainer's folder against its conversion, against a later one, and against another seed's."""
    from support.trainer_runs import train_adamw

    first, _ = train_adamw(tmp_path / "run")
    later = first.with_name("checkpoint-12")
    liontool.convert_checkpoint(first, lr_ratio=RATIO)
    found = diff(first, first.with_name(f"lion-{first.name}"))
    check_conversion(found)
    assert verdicts(found, "weight") == {"identical"}
    found = diff(first, later)
    assert not found.structure_differs
    assert {(one.field, one.a, one.b) for one in found.fields if one.part == "run"} == {
        ("step", 6, 12),
        ("epoch", 0.5, 1.0),
    }
    assert verdicts(found, "weight") == {"different"}
    assert all(one.values.sums.sign_agreement is not None for one in found.tensors
               if one.field == "exp_avg")  # fmt: skip
    weights = diff(first, first / "model.safetensors", filters=["!state.*", "!rng_state*"])
    assert [one.field for one in weights.fields] == ["optimizer"]
    assert verdicts(weights, "weight") == {"identical"}
    assert not weights.structure_differs

"""An optimizer's parameters are those of the model beside it, or a finding says which are not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.verify import verify

Parts = dict[str, Any]
IDS = {"moment-without-weight", "moment-order", "parameter-names"}


def run(*, named: bool = False, groups: int = 1, sizes: tuple[int, ...] = (3, 2, 5)) -> Parts:
    """A model and its AdamW after a step."""
    pairs = zip(sizes, sizes[1:], strict=False)  # noqa: RUF007
    model = torch.nn.Sequential(*(torch.nn.Linear(i, o) for i, o in pairs))
    every = list(model.named_parameters())
    split = [[p for p in every if p[1].ndim > 1], [p for p in every if p[1].ndim < 2]]
    chosen = [{"params": part if named else [p for _, p in part]} for part in split]
    if groups == 1:
        chosen = every if named else [p for _, p in every]  # type: ignore[assignment]
    optimizer = torch.optim.AdamW(chosen)
    model(torch.ones(1, sizes[0])).sum().backward()
    optimizer.step()
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


def findings(parts: Parts, path: Path) -> dict[str, str]:
    """What this file's checks say of it."""
    torch.save(parts, path)
    return {f.id: f.text for f in verify(path).findings if f.id in IDS}


def swapped(parts: Parts) -> None:
    state = parts["optimizer"]["state"]
    state[0], state[2] = state[2], state[0]


def reshaped(parts: Parts) -> None:
    for name in ("exp_avg", "exp_avg_sq"):
        parts["optimizer"]["state"][0][name] = torch.ones(7, 7)


def short(parts: Parts) -> None:
    parts["optimizer"]["param_groups"][0]["param_names"].pop()


def twice(parts: Parts) -> None:
    names = parts["optimizer"]["param_groups"][0]["param_names"]
    names[1] = names[0]


def renamed(parts: Parts) -> None:
    parts["optimizer"]["param_groups"][0]["param_names"][0] = "other.weight"


FAULTS: dict[str, tuple[Callable[[Parts], None], bool, str, str]] = {
    "swapped": (swapped, False, "moment-order", "moments of position 1, [2], do not follow"),
    "reshaped": (reshaped, False, "moment-without-weight", "1 more moments of shape [7, 7]"),
    "short": (short, True, "parameter-names", "has 3 param_names for 4 parameters"),
    "twice": (twice, True, "parameter-names", "0.weight are the names of more than one"),
    "renamed": (renamed, True, "parameter-names", "other.weight are names of no weight"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults(fault: str, tmp_path: Path) -> None:
    """Each fault has its finding, and no other."""
    change, named, id, words = FAULTS[fault]
    parts = run(named=named)
    change(parts)
    found = findings(parts, tmp_path / "a.pt")
    assert list(found) == [id]
    assert words in found[id]


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_honest_runs(named: bool, groups: int, tmp_path: Path) -> None:
    """Groups that are parts of the model, in its order, are fine."""
    assert not findings(run(named=named, groups=groups), tmp_path / "a.pt")


def test_wrapped_names(tmp_path: Path) -> None:
    """A wrapper's prefix on one side makes no strangers."""
    parts = run(named=True)
    parts["model"] = {f"module.{name}": tensor for name, tensor in parts["model"].items()}
    assert not findings(parts, tmp_path / "a.pt")


def test_frozen_and_tied_weights(tmp_path: Path) -> None:
    """Weights that the optimizer has not, or once, are passed over."""
    parts = run()
    tied = dict(parts["model"])
    tied["head.weight"] = tied["1.weight"]
    parts["model"] = {"frozen.weight": torch.ones(9, 9), **tied}
    assert not findings(parts, tmp_path / "a.pt")


def test_one_number_for_a_parameter(tmp_path: Path) -> None:
    """State that has not the shape of its parameter is no moment of another."""
    parts = run()
    for state in parts["optimizer"]["state"].values():
        state["exp_avg"] = torch.ones(())
    parts["optimizer"]["state"][1]["exp_avg"] = torch.ones(0)
    assert "moment-without-weight" not in findings(parts, tmp_path / "a.pt")


def test_without_a_model(tmp_path: Path) -> None:
    """An optimizer alone is compared with nothing."""
    parts = run()
    del parts["model"]
    swapped(parts)
    assert not findings(parts, tmp_path / "a.pt")


def test_model_behind_an_average(tmp_path: Path) -> None:
    """With two models of its shapes, nothing tells whose order it has."""
    parts = run()
    parts["ema"] = dict(reversed(list(parts["model"].items())))
    assert not findings(parts, tmp_path / "a.pt")

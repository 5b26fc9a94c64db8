"""What an optimizer of torch would miss at its next step is missed before."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.consistency import consistency
from liontool.inspect.opening import opened

State = dict[str, Any]


def adamw(**options: Any) -> State:
    """What an AdamW of four parameters saves after a step."""
    layers = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 1))
    optimizer = torch.optim.AdamW(layers.parameters(), **options)
    layers(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return optimizer.state_dict()


def without(name: str, *keys: int) -> Callable[[State], None]:
    """Takes a field out of the state of some parameters."""

    def change(state: State) -> None:
        for key in keys:
            del state["state"][key][name]

    return change


def amsgrad(state: State) -> None:
    state["param_groups"][0]["amsgrad"] = True


def no_betas(state: State) -> None:
    del state["param_groups"][0]["betas"]


FAULTS = {
    "all second moments": (without("exp_avg_sq", 0, 1, 2, 3), "state-of-lion", "AdamW fails"),
    "half of them": (without("exp_avg_sq", 0, 1), "state-field-missing", "2 parameters lack"),
    "all steps": (without("step", 0, 1, 2, 3), "state-field-missing", "all parameters lack step"),
    "amsgrad": (amsgrad, "state-field-missing", "4 parameters lack max_exp_avg_sq"),
    "betas": (no_betas, "group-field-missing", "lacks betas"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_missing(fault: str, tmp_path: Path) -> None:
    """Each fault has its finding."""
    change, id, words = FAULTS[fault]
    state = adamw()
    change(state)
    torch.save({"optimizer": state}, tmp_path / "a.pt")
    texts = [f.text for f in consistency(opened(tmp_path / "a.pt")) if f.id == id]
    assert any(words in text for text in texts)


def resumed(optimizer: torch.optim.Optimizer, state: State) -> None:
    """The next step of a run."""
    optimizer.load_state_dict(state)
    optimizer.step()


@pytest.mark.parametrize("fault", ["half of them", "all steps", "amsgrad", "betas"])
def test_torch_fails_there(fault: str) -> None:
    """What is called an error stops the real AdamW, when it loads or at its step."""
    state = adamw()
    FAULTS[fault][0](state)
    params = [torch.nn.Parameter(torch.ones(2, 3)), torch.nn.Parameter(torch.ones(2))]
    params += [torch.nn.Parameter(torch.ones(1, 2)), torch.nn.Parameter(torch.ones(1))]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = torch.optim.AdamW(params)
    with pytest.raises(KeyError):
        resumed(optimizer, state)


@pytest.mark.parametrize("options", [{}, {"amsgrad": True}, {"capturable": False}])
def test_honest_state(options: dict[str, Any], tmp_path: Path) -> None:
    """What AdamW saves lacks nothing."""
    torch.save({"optimizer": adamw(**options)}, tmp_path / "a.pt")
    assert not consistency(opened(tmp_path / "a.pt"))

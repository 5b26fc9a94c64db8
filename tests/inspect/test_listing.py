"""Every tensor once, by its part in the checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from liontool.inspect.listing import listed
from liontool.inspect.opening import opened


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model, an AdamW with named parameters, and something else."""
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(list(model.named_parameters()))
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    path = tmp_path / "run.pt"
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save({**state, "rng": [torch.get_rng_state()]}, path)
    return path


def test_roles_and_names(checkpoint: Path) -> None:
    """Weights go by their own names, state by its parameter, the rest by its path."""
    items = {item.name: item for item in listed(opened(checkpoint))}
    assert items["weight"].role == "weight"
    assert items["weight"].label == "model.weight"
    moment = items["state.bias.exp_avg"]
    assert (moment.role, moment.parameter, moment.field) == ("state", "bias", "exp_avg")
    assert (moment.optimizer, moment.group) == (0, 0)
    assert items["rng.0"].role == "other"
    assert len(items) == 2 + 6 + 1


def test_several_optimizers_are_told_apart(tmp_path: Path) -> None:
    """Each of several optimizers has a parameter 0; the names tell whose it is."""
    weight = torch.nn.Parameter(torch.ones(2))
    weight.grad = torch.ones(2)
    states = {}
    for name in ("first", "second"):
        optimizer = torch.optim.AdamW([weight])
        optimizer.step()
        states[name] = optimizer.state_dict()
    torch.save(states, tmp_path / "two.pt")
    names = [item.name for item in listed(opened(tmp_path / "two.pt"))]
    assert "first.state.0.exp_avg" in names
    assert "second.state.0.exp_avg" in names
    assert len(set(names)) == len(names)

"""A parameter that had a gradient of 0 has one after a resume, so that optimizers go on with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from liontool.errors import FormatError
from liontool.resume.difference import difference
from support.run_parts import Parts

ZERO_GRADS = {
    "zeros at the end": lambda optimizer: (None, lambda: optimizer.zero_grad(set_to_none=False)),
    "zeros at the beginning": lambda optimizer: (
        lambda: optimizer.zero_grad(set_to_none=False),
        None,
    ),
    "default at the end": lambda optimizer: (None, optimizer.zero_grad),
    "default at the beginning": lambda optimizer: (optimizer.zero_grad, None),
}


class Branched(nn.Module):
    """A layer that is used in the first step alone."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.always, self.rare = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, numbers: torch.Tensor, is_first: bool) -> torch.Tensor:
        found = self.always(numbers)
        return self.rare(found) if is_first else found


class Script(Parts):
    """Trains with one way to let gradients go."""

    zero_grads: str

    def _step(self, number: int) -> None:
        before, after = ZERO_GRADS[self.zero_grads](self.optimizer)
        numbers = torch.Generator().manual_seed(number)
        if before:
            before()
        found = self.model(torch.randn(5, 4, generator=numbers), number == 0)
        found.square().mean().backward()
        self.optimizer.step()
        if after:
            after()


def adamw(params: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(params, lr=0.1)


def script(zero_grads: str, kind: Callable[[Any], Any] = adamw, wrap: Any = None) -> Script:
    model = Branched()
    made = Script(wrap(model) if wrap else model, kind(model.parameters()))
    made.zero_grads = zero_grads
    return made


@pytest.mark.parametrize("zero_grads", ZERO_GRADS)
@pytest.mark.parametrize("wraps", [(None, None), (None, nn.DataParallel)], ids=["bare", "wrapped"])
def test_an_unused_branch(zero_grads: str, wraps: Any, tmp_path: Path) -> None:
    """It goes on as in the run that was never interrupted, whichever way gradients go."""
    whole = script(zero_grads).train(0, 6)
    checkpoint = script(zero_grads, wrap=wraps[0]).train(0, 3).save(tmp_path / "run")
    second = script(zero_grads, wrap=wraps[1])
    second.resume(checkpoint)
    second.train(3, 6)
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert difference(whole.optimizer.state_dict(), second.optimizer.state_dict()) is None


def test_what_is_kept() -> None:
    """Names alone, and nothing where there are none."""
    kept = script("zeros at the end").train(0, 1).census().live()["gradients"]
    assert kept == {"dense": ["always.weight", "always.bias", "rare.weight", "rare.bias"]}
    assert "gradients" not in script("default at the end").train(0, 1).census().live()


def test_sparse_ones(tmp_path: Path) -> None:
    """They stay sparse, since their optimizers take no others."""

    def build() -> Parts:
        model = nn.Embedding(5, 2, sparse=True)
        return Parts(model, torch.optim.SparseAdam(model.parameters()))

    parts = build()
    parts.model(torch.tensor([1, 3])).sum().backward()
    parts.optimizer.step()
    second = build()
    second.resume(parts.save(tmp_path / "run"))
    grad = second.model.weight.grad
    assert grad is not None
    assert grad.is_sparse
    assert grad.coalesce().values().numel() == 0


def test_of_no_module() -> None:
    """A parameter that a thing of another kind keeps is known by its place in the optimizer."""
    model, own = nn.Linear(1, 1), nn.Parameter(torch.ones(2))
    own.grad = torch.zeros(2)
    module = type("Kept", (), {})()
    module.state_dict = lambda: {"own": own.detach()}
    module.load_state_dict = lambda state: None
    optimizer = adamw([*model.parameters(), own])
    parts = Parts(model, optimizer, extras={"kept": module})
    assert parts.census().live()["gradients"] == {"dense": ["optimizer.0.2"]}


@pytest.mark.parametrize("saved", [[], {"odd": []}, {"dense": 1}, {"dense": [1]}])
def test_not_what_is_written(saved: Any) -> None:
    """Another layout is refused before anything is changed."""
    parts = script("default at the end")
    census = parts.census()
    with pytest.raises(FormatError, match=r"^gradients: does not say which parameters have one$"):
        census.load({**census.live(), "gradients": saved}, overrides={})

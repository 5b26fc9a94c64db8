"""Runs in miniature: parts that train, a checkpoint on disk, and parts that go on from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from liontool.resume.census import Census
from liontool.resume.difference import difference
from liontool.resume.encoding import encode_state
from liontool.resume.host_copy import HostCopy
from liontool.resume.reading import read_state
from liontool.resume.snapshot import Snapshot
from liontool.resume.writing import write_checkpoint

OPTIMIZER = torch.optim.Optimizer


def net(dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """Two layers; the same weights every time."""
    torch.manual_seed(0)
    layers = torch.nn.Linear(4, 6), torch.nn.Tanh(), torch.nn.Linear(6, 2)
    return torch.nn.Sequential(*layers).to(dtype)


@dataclass
class Parts:
    """What a script builds.

    Attributes:
        model: Its model.
        optimizer: Its optimizer.
        scheduler: Stepped after the optimizer.
        extras: More to be kept; optimizers among them are stepped too.
        config: What `config=` is given.
        lines: What was said.
        resumed: What has taken a checkpoint in.
    """

    model: torch.nn.Module
    optimizer: Any
    scheduler: Any = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    config: Any = None
    lines: list[str] = field(default_factory=list)
    resumed: Census | None = None

    def census(self) -> Census:
        return Census(
            model=self.model, optimizer=self.optimizer, scheduler=self.scheduler, loader=None,
            extras=self.extras, config=self.config, say=self.lines.append,
        )  # fmt: skip

    def train(self, first: int, last: int) -> Parts:
        """Steps `first` to `last`, each on its own numbers."""
        for step in range(first, last):
            self._step(step)
        return self

    def _step(self, number: int) -> None:
        dtype = next(self.model.parameters()).dtype
        numbers = torch.Generator().manual_seed(number)
        data = torch.randn(5, 4, generator=numbers).to(dtype)
        optimizers = [self.optimizer, *self.extras.values()]
        optimizers = [one for one in optimizers if isinstance(one, OPTIMIZER)]

        def loss() -> torch.Tensor:
            for optimizer in optimizers:
                optimizer.zero_grad()
            found = self.model(data).float().square().mean()
            found.backward()
            return found

        loss()
        for optimizer in optimizers:
            if isinstance(optimizer, torch.optim.LBFGS):
                optimizer.step(loss)
            else:
                optimizer.step()
        if self.scheduler is not None:
            plateau = isinstance(self.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
            self.scheduler.step(*[1.0] * plateau)

    def save(self, run: Path) -> Path:
        """A checkpoint of the parts as they are."""
        run.mkdir(exist_ok=True)
        census = self.resumed or self.census()
        encoded = encode_state(census.live())
        body = HostCopy().take(encoded.tensors)
        return write_checkpoint(run, Snapshot(3, 0, None, body, encoded.tree, census.facts()))

    def resume(self, checkpoint: Path, *, allow: Any = (), **overrides: Any) -> Census:
        """Take a checkpoint in, as Run does."""
        census = self.resumed = self.census()
        state, facts = read_state(checkpoint, census.live())
        census.check(facts, allow=allow)
        census.load(state, overrides=overrides)
        return census


def check_goes_on(build: Callable[[], Parts], folder: Path) -> Parts:
    """Three steps, a checkpoint and three more are six steps, and nothing is said of it."""
    whole = build().train(0, 6)
    first = build().train(0, 3)
    saved = first.census().live()
    second = build()
    census = second.resume(first.save(folder / "run"))
    assert difference(census.live(), saved) is None
    assert census.reasons() == second.lines == []
    second.train(3, 6)
    assert difference(second.census().live(), whole.census().live()) is None
    return second

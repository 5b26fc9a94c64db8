"""A small training run that writes down all it sees, and what is left of it at its end.

It has all that restarts get wrong: dropout, an accumulation of 2, a validation that draws random
numbers after `step`, and code after the `for` that moves the scheduler and draws too.
"""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from liontool.resume import Run

Maker = Callable[[], Any]


class Killed(Exception):
    """The end of a trainer that nobody asked."""


@dataclass
class Script:
    """One training script.

    Attributes:
        loader: Makes its loader.
        goal: Steps or epochs.
        accumulate: Batches for a step.
        break_every: The `for` is left after so many batches; 0 for never.
        save_every: As `Run` takes it.
        loaders: Those that were made, the last one last.
    """

    loader: Maker
    goal: dict[str, int] = field(default_factory=lambda: {"epochs": 2})
    accumulate: int = 2
    break_every: int = 0
    save_every: Any = "1h"
    loaders: list[Any] = field(default_factory=list)


@dataclass
class Seen:
    """What the starts of one run have seen: (step before the batch, pass, what)."""

    batches: list[tuple[int, Any]] = field(default_factory=list)
    after: list[tuple[int, Any]] = field(default_factory=list)

    def forget_from(self, step: int, epoch: int) -> None:
        """A restart at a step sees again what came after it."""
        self.batches = [one for one in self.batches if one[0] < step]
        self.after = [one for one in self.after if one[0] < epoch]


def seed_all(seed: int) -> None:
    """Python's, NumPy's and torch's generator."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def draws() -> list[float]:
    """A number of each generator."""
    return [random.random(), float(np.random.rand()), torch.rand(()).item()]


def start(
    folder: Path,
    script: Script,
    seen: Seen,
    seed: int = 0,
    on: Callable[[str, Run], None] = lambda where, run: None,
) -> dict[str, Any]:
    """Train until the end, or until `on` ends it; returns all state at the end.

    Args:
        folder: Of the run.
        script: What to train.
        seen: Is added to.
        seed: Of the generators before anything is built, where there is a checkpoint.
        on: Called with "batch", "step" and "after", at these places of the loop.
    """
    seed_all(seed if list(folder.glob("step-*")) else 0)
    model = nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.3), nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    loader = script.loader()
    script.loaders.append(loader)
    with Run(
        folder,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        loader=loader,
        save_every=script.save_every,
        say=lambda line: None,
        **script.goal,
    ) as run:
        seen.forget_from(run.resumed_from or 0, run.epoch)
        draws()  # whatever a script draws before its loop
        micro = 0
        while not run.finished:
            for count, batch in enumerate(run, 1):
                before = run.step_count
                on("batch", run)
                loss = model(features(batch)).mean() / script.accumulate
                loss.backward()
                micro += 1
                seen.batches.append((before, [plain(batch), loss.item(), run.epoch]))
                if micro % script.accumulate == 0:
                    optimizer.step()
                    optimizer.zero_grad()
                    run.step()
                    on("step", run)
                    seen.batches.append((before, ["validated", draws()]))  # after step()
                if count == script.break_every:
                    break
            else:
                scheduler.step()
                seen.after.append((run.epoch - 1, [draws(), run.epoch, run.step_count]))
                on("after", run)
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": {**scheduler.state_dict()},
        "generators": [random.getstate(), np.random.get_state(), torch.get_rng_state()],
        "counts": [run.step_count, run.epoch, run.finished],
    }


def features(batch: Any) -> torch.Tensor:
    """A batch as the model takes it."""
    value = torch.as_tensor(batch, dtype=torch.float32)
    return value.reshape(-1, 1).expand(-1, 3) if value.dim() < 2 else value


def plain(batch: Any) -> Any:
    """A batch, to be kept."""
    return batch.tolist() if isinstance(batch, torch.Tensor) else batch


def at(place: str, step: int, do: Callable[[], None]) -> Callable[[str, Run], None]:
    """Something that happens once, at a place of the loop with so many steps done."""
    done: list[bool] = []

    def on(where: str, run: Run) -> None:
        if not done and where == place and run.step_count == step:
            done.append(True)
            do()

    return on


def ask_to_stop() -> None:
    """What a scheduler sends."""
    signal.raise_signal(signal.SIGTERM)


def kill() -> None:
    """As near to kill -9 as one process comes."""
    raise Killed

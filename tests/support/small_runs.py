"""Runs of a model with two weights, in a folder that a test has prepared."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import Any

import torch

from liontool.resume import Run


def begun(folder: Path, said: list[str], **options: Any) -> Run:
    """A run that saves when it is told to."""
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    options = {"steps": 99, "save_every": "1h", "say": said.append} | options
    return Run(folder, model=model, optimizer=optimizer, **options)


def trained(run: Run, steps: int, *, saving: bool = True) -> Run:
    """Step so often, with a save after each."""
    for _ in islice(run, steps):
        run.step()
        if saving:
            run.save()
    return run


def let_go(run: Run) -> None:
    """What an exception in a `with` does: the folder is free, and nothing is saved."""
    run.__exit__(RuntimeError, RuntimeError(), None)


def left(folder: Path, steps: int) -> None:
    """The folder of a run that was saved after each of some steps."""
    let_go(trained(begun(folder, []), steps))

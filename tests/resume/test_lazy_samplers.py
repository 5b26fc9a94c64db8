"""A batch sampler that draws while it goes on cannot be repeated, which is said."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import Sampler, WeightedRandomSampler

from liontool.resume import Run
from support.exact_loaders import Plain, loader

pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")


class Lazy(Sampler[list[int]]):
    """Draws each batch when it is asked for, from what is left."""

    def __init__(self, numbers: Any) -> None:
        self.numbers = numbers

    def __iter__(self) -> Iterator[list[int]]:
        left = list(range(10))
        while left:
            yield [left.pop(self.numbers.randrange(len(left))) for _ in range(2)]


def resumed(folder: Path, options: Any, said: list[str]) -> Run:
    """A run that was left after 3 batches, and has asked for the next."""
    for last in (3, 4):
        model = torch.nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        data = loader(Plain(10), **options())
        run = Run(folder, model=model, optimizer=optimizer, loader=data, steps=9, say=said.append)
        for _ in run:
            random.random()
            run.step()
            if run.step_count == last:
                break
        run.close()
    return run


def test_from_a_global_generator(tmp_path: Path) -> None:
    """The body draws from it too, so the order is another one: that is not exact."""
    said: list[str] = []
    run = resumed(tmp_path / "run", lambda: {"batch_sampler": Lazy(random)}, said)
    assert run.level == "state-exact"
    lines = [line for line in said if line.startswith("not exact: the batch sampler draws from")]
    assert len(lines) == 1


@pytest.mark.parametrize(
    "options",
    [
        lambda: {"batch_sampler": Lazy(random.Random(1))},
        lambda: {"sampler": WeightedRandomSampler([1.0] * 10, 10)},
        lambda: {"shuffle": True},
    ],
    ids=["its own generator", "all at once", "shuffled"],
)
def test_others(options: Any, tmp_path: Path) -> None:
    """Those that draw at their beginning, or from a generator of their own, are exact."""
    assert resumed(tmp_path / "run", options, []).level == "exact"

"""A training run that shows every difference: what each of its steps left is one hash.

It draws random numbers wherever a real one does: dropout, augmentation in the data set, a
validation pass after the step. Two batches make a step, and a pass has an odd number of them. A
start that goes on from a checkpoint begins with wrong weights and wrong generators, so whatever is
not restored is seen.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from liontool.optim import Lion
from liontool.resume import Run, SampleSeeded
from support.crash_digest import digest

SAMPLES = 20
BATCH = 3
WIDTH = 8
ACCUMULATION = 2
VALIDATION = 3

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What to train.

    Attributes:
        folder: Of the run.
        workers: Processes that load data.
        steps: Optimizer steps in all.
        save_every: As `Run` takes it.
        lion: Whether to train with Lion instead of AdamW and OneCycleLR.
        seed: Of the weights, the order of the data and the augmentation.
        pause: Seconds that loading a sample and validation take.
    """

    folder: Path
    workers: int = 0
    steps: int = 30
    save_every: int | str = 2
    lion: bool = False
    seed: int = 0
    pause: float = 0.0


class Augmented(Dataset[tuple[Tensor, Tensor]]):
    """Samples with noise from all three generators.

    Args:
        pause: Seconds that one takes.
        tell: Told that one is being loaded.
    """

    def __init__(self, pause: float, tell: Tell) -> None:
        self.pause = pause
        self.tell = tell

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.pause:
            self.tell("data")
            time.sleep(self.pause)
        base = torch.linspace(-1, 1, WIDTH) * (index + 1) / SAMPLES
        noise = torch.rand(WIDTH) * random.random() + float(numpy.random.random())
        return base + noise / 10, torch.tensor([float(index % 2)])


class Seen:
    """A hash of all batches in their order; each part of the state has a `state_dict`."""

    def __init__(self) -> None:
        self.chain = b""
        self.batches = 0

    def add(self, batch: list[Tensor]) -> None:
        """Take note of a batch."""
        self.chain = hashlib.sha256(self.chain + digest(batch)).digest()
        self.batches += 1

    def state_dict(self) -> dict[str, Any]:
        """What is kept."""
        return {"chain": self.chain, "batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what was kept."""
        self.chain, self.batches = state["chain"], state["batches"]


class Trainer:
    """The objects of a run.

    Args:
        plan: What to train.
        tell: Told each phase, as it begins, in a word.
    """

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self.plan = plan
        self.tell = tell
        _seed(plan.seed)
        self.model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimizer, self.scheduler = self._optimizer()
        self.loader = self._loader()
        self.seen = Seen()

    def _optimizer(self) -> tuple[torch.optim.Optimizer, OneCycleLR | None]:
        parameters = self.model.parameters()
        if self.plan.lion:
            return Lion(parameters, lr=1e-3, weight_decay=0.1), None
        adamw = torch.optim.AdamW(parameters, lr=1e-3)
        return adamw, OneCycleLR(adamw, max_lr=1e-2, total_steps=self.plan.steps + 1)

    def _loader(self) -> StatefulDataLoader[Any]:
        data = SampleSeeded(Augmented(self.plan.pause, self.tell), seed=self.plan.seed)
        return StatefulDataLoader(
            data, batch_size=BATCH, shuffle=True, num_workers=self.plan.workers
        )

    def train(self) -> None:
        """Train until all steps are done; `tell` hears what each step left."""
        self._spoil()
        self.tell("constructor")
        with Run(
            self.plan.folder,
            model=self.model,
            optimizer=self.optimizer,
            scheduler=self.scheduler,
            loader=self.loader,
            steps=self.plan.steps,
            save_every=self.plan.save_every,
            keep={"last": 3},
            config={"plan": self.plan.seed},
            say=lambda line: self.tell(f"say {line}"),
            seen=self.seen,
        ) as run:
            if run.resumed_from is not None:
                _seed(12345)
            self.tell(f"resumed {run.resumed_from} {run.level}")
            while not run.finished:
                self._pass(run)
        self.tell(f"saved {run.saved_step}")
        self.tell(f"done {self.digest(generators=False)}")

    def _spoil(self) -> None:
        """Where there is something to go on from, nothing else may be used."""
        if any(self.plan.folder.glob("step-*")):
            with torch.no_grad():
                for parameter in self.model.parameters():
                    parameter.fill_(float("nan"))

    def _pass(self, run: Run) -> None:
        for batch in self._batches(run):
            loss = (self.model(batch[0]) - batch[1]).square().mean() / ACCUMULATION
            loss.backward()
            self.seen.add(batch)
            if self.seen.batches % ACCUMULATION:
                continue
            self.tell("step")
            self.optimizer.step()
            if self.scheduler is not None:
                self.scheduler.step()
            self.optimizer.zero_grad()
            run.step(metric=loss)
            if run.step_count % VALIDATION == 0:
                self._validate()
            self.tell(f"left {run.step_count} {self.digest()}")

    def _batches(self, run: Run) -> Iterator[Any]:
        told = None
        for batch in run:
            if run.saved_step != told:
                told = run.saved_step
                self.tell(f"saved {told}")
            yield batch

    def _validate(self) -> None:
        self.tell("validation")
        self.model.eval()
        with torch.no_grad():
            self.model(torch.rand(4, WIDTH) + random.random() + float(numpy.random.random()))
        time.sleep(self.plan.pause)
        self.model.train()

    def digest(self, generators: bool = True) -> str:
        """A hash of everything that a run consists of.

        Args:
            generators: Whether the states of the generators are part of it.
        """
        state = [
            self.model.state_dict(),
            self.optimizer.state_dict(),
            None if self.scheduler is None else self.scheduler.state_dict(),
            self.seen.state_dict(),
        ]
        if generators:
            state += [random.getstate(), numpy.random.get_state(), torch.get_rng_state()]
        return digest(state).hex()[:32]


def warm_up() -> None:
    """Import what torch imports only when the first optimizer is made; forks then have it."""
    for lion in (False, True):
        Trainer(Plan(Path(), lion=lion), lambda line: None)


def _seed(seed: int) -> None:
    random.seed(seed)
    numpy.random.seed(seed)
    torch.manual_seed(seed)

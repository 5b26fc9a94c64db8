"""Loaders of every kind, over twelve samples in batches of two; each call makes a new one."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import (
    BatchSampler,
    ConcatDataset,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    Subset,
    WeightedRandomSampler,
)
from torchdata.stateful_dataloader import StatefulDataLoader
from torchdata.stateful_dataloader.sampler import StatefulDistributedSampler

from liontool.resume import SampleSeeded

SAMPLES = 12


class Augmented(Dataset[Any]):
    """Samples with noise from all three generators."""

    def __init__(self, size: int = SAMPLES) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        noise = torch.tensor([random.random(), np.random.rand(), torch.rand(()).item()])
        return index + noise


class Plain(Augmented):
    """Samples without noise."""

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.full((3,), float(index))


class WithOwnGenerators(Augmented):
    """Noise from generators that the data set owns."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = {}
        self.draws = [random.Random(1), np.random.default_rng(2), np.random.RandomState(3)]
        self.torch = torch.Generator().manual_seed(4)

    def __getitem__(self, index: int) -> torch.Tensor:
        own = self.draws
        values = [own[0].random(), own[1].random(), own[2].rand() + self.draw()]
        return index + torch.tensor(values, dtype=torch.float32)

    def draw(self) -> float:
        return torch.rand((), generator=self.torch).item()


class Counting(Augmented):
    """A data set with a state that goes on from pass to pass."""

    def __init__(self) -> None:
        super().__init__()
        self.read = 0

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read += 1
        return torch.tensor([index, self.read, 0.0])

    def state_dict(self) -> dict[str, Any]:
        return {"read": self.read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.read = state["read"]


def _share() -> tuple[int, int]:
    """Number of readers, and which one this is."""
    worker = torch.utils.data.get_worker_info()
    return (worker.num_workers, worker.id) if worker else (1, 0)


class Stream(IterableDataset[Any]):
    """A stream that is told where to go on, and begins with that the next time it is read."""

    def __init__(self) -> None:
        self.at = self.begin = self.passes = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        readers, first = _share()
        self.passes += self.begin == 0
        self.at, self.begin = self.begin, 0
        while self.at < SAMPLES // readers:
            self.at += 1
            yield torch.tensor([self.at * readers + first, self.passes, 0.0])

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begin, self.passes = state["at"], state["passes"]


class Rewinding(Stream):
    """A stream that is at its beginning again when it has ended."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        while self.at < SAMPLES:
            self.at += 1
            yield torch.tensor([self.at, self.passes, 0.0])
        self.at = 0
        self.passes += 1

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at, self.passes = state["at"], state["passes"]


class Positions(Iterator[torch.Tensor]):
    """What reads a stream, and knows where it is."""

    def __init__(self) -> None:
        self.readers, self.at = _share()

    def __next__(self) -> torch.Tensor:
        if self.at >= SAMPLES:
            raise StopIteration
        self.at += self.readers
        return torch.full((3,), float(self.at))

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.at = state["at"]


class Readers(IterableDataset[Any]):
    """A stream whose iterators have the state."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        return Positions()


class PlainStream(IterableDataset[Any]):
    """A stream that does not know where it is."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        for index in range(SAMPLES):
            yield torch.full((3,), float(index))


class Shuffling(Sampler[int]):
    """An order from Python's generator, drawn when the first index is asked for."""

    def __init__(self, generator: random.Random | None = None) -> None:
        self.generator = generator

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        order = list(range(SAMPLES))
        (self.generator or random).shuffle(order)
        yield from order


class KnowingSampler(Sampler[int]):
    """A sampler with a state: where it is, and in which pass."""

    def __init__(self) -> None:
        self.at = self.begin = self.passes = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        self.passes += self.begin == 0
        self.at, self.begin = self.begin, 0
        while self.at < SAMPLES:
            self.at += 1
            yield (self.at + self.passes) % SAMPLES

    def state_dict(self) -> dict[str, Any]:
        return {"at": self.at, "passes": self.passes}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.begin, self.passes = state["at"], state["passes"]


def loader(dataset: Any, **options: Any) -> Any:
    """A StatefulDataLoader in batches of two, without torch's warnings of its inside."""
    if "batch_sampler" not in options:
        options.setdefault("batch_size", 2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return StatefulDataLoader(dataset, **options)


def owned() -> torch.Generator:
    """A generator that is not torch's own."""
    return torch.Generator().manual_seed(7)


def _shuffled(dataset: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    return lambda: loader(dataset(), shuffle=True, **options)


def _own_shuffled(dataset: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    return lambda: loader(dataset(), shuffle=True, generator=owned(), **options)


def _sampled(sampler: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    return lambda: loader(Augmented(), sampler=sampler(), **options)


def _batched(sampler: Callable[[], Any]) -> Callable[[], Any]:
    return lambda: loader(Augmented(), batch_sampler=BatchSampler(sampler(), 2, False))


def _seeded(size: int = SAMPLES) -> SampleSeeded:
    return SampleSeeded(Augmented(size), seed=5)


def _wrapped() -> Any:
    return Subset(ConcatDataset([_seeded(6), _seeded(6)]), list(range(12)))


_weights = [float(index + 1) for index in range(SAMPLES)]
_random = partial(RandomSampler, Augmented())

IN_PROCESS: dict[str, Callable[[], Any]] = {
    "in order": lambda: loader(Augmented()),
    "shuffle": _shuffled(Augmented),
    "shuffle, own generator": _own_shuffled(Augmented),
    "shuffle, drop_last": _shuffled(lambda: Augmented(13), drop_last=True),
    "a short last batch": _shuffled(lambda: Augmented(9)),
    "seeded samples": _shuffled(_seeded),
    "data set with generators": _shuffled(WithOwnGenerators),
    "data set with a state": _shuffled(Counting),
    "weighted": _sampled(lambda: WeightedRandomSampler(_weights, SAMPLES)),
    "weighted, own generator": _sampled(
        lambda: WeightedRandomSampler(_weights, SAMPLES, generator=owned())
    ),
    "torch's sampler": _sampled(_random),
    "torch's sampler, own generator": _sampled(lambda: _random(generator=owned())),
    "with replacement": _sampled(lambda: _random(True, 72, owned()), batch_size=12),
    "own sampler": _sampled(Shuffling),
    "own sampler, own generator": _sampled(lambda: Shuffling(random.Random(3))),
    "sampler with a state": _sampled(KnowingSampler),
    "distributed sampler": _sampled(
        lambda: StatefulDistributedSampler(Augmented(), num_replicas=1, rank=0)
    ),
    "batch sampler": _batched(_random),
    "batch sampler, own generator": _batched(lambda: _random(generator=owned())),
    "list of batches": lambda: loader(
        Augmented(), batch_sampler=[[0, 3], [9, 1], [2, 2], [4, 5], [7, 8], [6, 10]]
    ),
    "without batches": lambda: loader(Augmented(5), batch_size=None, shuffle=True),
    "stream": lambda: loader(Stream()),
    "stream that rewinds": lambda: loader(Rewinding()),
    "stream with readers": lambda: loader(Readers()),
    "stream without a state": lambda: loader(PlainStream()),
    "no loader": lambda: None,
}
"""Those that read in the process of the run."""

WITH_WORKERS: dict[str, Callable[[], Any]] = {
    "seeded samples": _shuffled(_seeded, num_workers=2),
    "seeded samples, own generator": _own_shuffled(_seeded, num_workers=2),
    "seeded samples, wrapped": _shuffled(_wrapped, num_workers=2),
    "seeded samples, one snapshot in 3": _shuffled(
        _seeded, num_workers=2, snapshot_every_n_steps=3
    ),
    "weighted": lambda: loader(
        _seeded(), sampler=WeightedRandomSampler(_weights, SAMPLES), num_workers=2
    ),
    "batch sampler, own generator": lambda: loader(
        _seeded(), batch_sampler=BatchSampler(_random(generator=owned()), 2, False), num_workers=2
    ),
    "workers that stay": _shuffled(Plain, num_workers=2, persistent_workers=True),
    "stream": lambda: loader(Stream(), num_workers=2),
    "stream with readers": lambda: loader(Readers(), num_workers=2),
}
"""Those that read in two processes of their own."""

"""Random augmentation that repeats: every sample has seeds of its own."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, StackDataset, Subset


class SampleSeeded(Dataset[Any]):
    """A data set whose samples draw the same random numbers in any worker and after any restart.

    Python, NumPy and torch's CPU generator are seeded from (seed, pass, index) while a sample is
    made, and go on afterwards where they were.

    Args:
        dataset: Takes an index.
        seed: Another seed makes other random numbers.

    Raises:
        ValueError: The data set has no indexes.

    Attributes:
        pass_index: Which pass over the data this is, from 0; `Run` sets it.
    """

    def __init__(self, dataset: Dataset[Any], seed: int = 0) -> None:
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"SampleSeeded needs a data set with indexes, got {type(dataset).__name__}; "
                "give an IterableDataset state_dict and load_state_dict instead"
            )
        self.dataset = dataset
        self.seed = seed
        self.pass_index = 0
        for name in ("state_dict", "load_state_dict"):
            if hasattr(dataset, name):
                setattr(self, name, getattr(dataset, name))

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: Any) -> Any:
        earlier = random.getstate(), np.random.get_state(), torch.get_rng_state()
        try:
            self._seed_all(index)
            return self.dataset[index]
        finally:
            random.setstate(earlier[0])
            np.random.set_state(earlier[1])
            torch.set_rng_state(earlier[2])

    def _seed_all(self, index: Any) -> None:
        words = _words(self.seed, self.pass_index, index)
        random.seed(words[0])
        np.random.seed([words[1] & 0xFFFFFFFF, words[1] >> 32])
        # Not torch.manual_seed: that one seeds the GPUs too.
        torch.default_generator.manual_seed(words[2])


def _words(seed: int, pass_index: int, index: Any) -> tuple[int, int, int]:
    """Three seeds of 63 bits that have nothing to do with those of other samples."""
    plain = index.item() if isinstance(index, (np.generic, torch.Tensor)) else index
    digest = hashlib.blake2b(repr((seed, pass_index, plain)).encode(), digest_size=24).digest()
    first, second, third = (int.from_bytes(digest[at : at + 8], "big") >> 1 for at in (0, 8, 16))
    return first, second, third


def seeded_parts(dataset: Any) -> Iterator[SampleSeeded]:
    """Every SampleSeeded in a data set, however it is wrapped."""
    if isinstance(dataset, SampleSeeded):
        yield dataset
    for part in _parts(dataset):
        yield from seeded_parts(part)


def is_seeded(dataset: Any) -> bool:
    """Whether nothing but a SampleSeeded makes samples; wrappers that torch has only choose."""
    if isinstance(dataset, (Subset, ConcatDataset, StackDataset)):
        return all(is_seeded(part) for part in _parts(dataset))
    return isinstance(dataset, SampleSeeded)


def _parts(dataset: Any) -> list[Any]:
    """What a wrapper of data sets wraps."""
    several = getattr(dataset, "datasets", ())
    parts = several.values() if isinstance(several, dict) else several
    inner = getattr(dataset, "dataset", None)
    return [*parts, *([] if inner is None else [inner])]

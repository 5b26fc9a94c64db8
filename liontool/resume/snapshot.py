"""What a save writes: one moment of a run, which no later step changes. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Body:
    """A safetensors file in memory.

    Attributes:
        header: The length, the JSON and its padding.
        data: The tensors; it is written to again when the next body is taken.
    """

    header: bytes
    data: memoryview

    @property
    def nbytes(self) -> int:
        """Bytes of the file."""
        return len(self.header) + self.data.nbytes


@dataclass(frozen=True)
class Snapshot:
    """A run between two steps.

    Attributes:
        step: Optimizer steps over all starts.
        epoch: Passes over the data that were finished.
        metric: What the run was asked to keep the best of, where it was given.
        body: The tensors.
        tree: The rest of the state, a tagged tree that names the tensors.
        facts: What run.json says besides step, epoch and number of ranks.
    """

    step: int
    epoch: int
    metric: float | None
    body: Body
    tree: Any
    facts: Mapping[str, Any]

"""A checkpoint while it is edited: what every word takes and gives. Frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from liontool.checkpoint.document import Place, TensorRef
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.source import Source
from liontool.errors import EditError


@dataclass(frozen=True)
class Notice:
    """Something the user should know. `id` is stable, `text` one sentence."""

    id: str
    text: str


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor of a model.

    Attributes:
        key: Its key in the file.
        name: What it is called by now.
        tensor: The tensor.
    """

    key: str
    name: str
    tensor: TensorRef


@dataclass(frozen=True)
class Weights:
    """The weights that stand side by side in one mapping of a file.

    Attributes:
        place: Where the mapping is.
        weights: Those that are left, in the order of the file.
    """

    place: Place
    weights: tuple[Weight, ...]


@dataclass(frozen=True)
class Draft:
    """A checkpoint with some words applied; the first draft is the checkpoint itself.

    Attributes:
        source: What is edited; for reading values and other documents alone.
        checkpoint: Optimizers and schedulers, with nothing in it where there are none.
        no_optimizer: Why there are none, else None.
        weights: Every mapping of weights in the files.
        metadata: The strings in the header of a safetensors file; None for other containers.
        notices: What the words have to say, in order.
    """

    source: Source
    checkpoint: Checkpoint
    no_optimizer: str | None
    weights: tuple[Weights, ...]
    metadata: Mapping[str, str] | None
    notices: tuple[Notice, ...] = field(default=())

    def optimizers(self) -> tuple[Optimizer, ...]:
        """The optimizers, for words that need one.

        Raises:
            EditError: There is none.
        """
        if not self.checkpoint.optimizers:
            raise EditError(f"needs an optimizer's state; {self.no_optimizer}")
        return self.checkpoint.optimizers

"""From a source to the first draft of an edit."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence

from liontool.checkpoint import frameworks
from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.frameworks import Framework, torch_layout
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import Source
from liontool.edit.draft import Draft, Weight, Weights
from liontool.edit.shards import INDEX
from liontool.errors import AmbiguousError, LayoutError
from liontool.inspect.listing import documents, is_weights


def draft(
    source: Source, framework: str | None = None, optimizers: Sequence[str] = ()
) -> tuple[Draft, Framework | None]:
    """The checkpoint as it is, and its framework; None for a file without an optimizer.

    Args:
        source: What is to be edited.
        framework: Its name where it should not be found out.
        optimizers: Edit these optimizers only, by their paths.

    Raises:
        LayoutError: What was asked for is not there, or several checkpoints are.
    """
    lens, checkpoint, fault = None, Checkpoint("", ()), None
    try:
        lens, checkpoint = frameworks.find(source, framework, optimizers)
    except LayoutError as error:
        is_choice = isinstance(error, AmbiguousError) and not _is_sharded_model(source)
        if framework is not None or optimizers or is_choice:
            raise
        fault = str(error)
    weights = tuple(_weights(source, _state_ids(checkpoint)))
    return Draft(source, checkpoint, fault, weights, _metadata(source)), lens


def _is_sharded_model(source: Source) -> bool:
    """Whether the folder has the index of shards, whose files are no choice but one model."""
    return any(name.endswith(INDEX) and "/" not in name for name in source.listing())


def _metadata(source: Source) -> Mapping[str, str] | None:
    if source.is_folder or source.document().container != "safetensors":
        return None
    return dict(source.document().facts)


def _state_ids(checkpoint: Checkpoint) -> set[int]:
    return {
        id(tensor)
        for optimizer in checkpoint.optimizers
        for slot in optimizer.slots.values()
        for _, tensor in slot.tensors()
    }


def _weights(source: Source, states: Collection[int]) -> Iterator[Weights]:
    """Every mapping of weights outside of optimizers, each once."""
    for document in documents(source):
        for place, value in torch_layout.nodes(document, is_leaf=torch_layout.is_optimizer):
            found = tuple(_entries(value, states)) if is_weights(value) else ()
            if found:
                yield Weights(place, found)


def _entries(holder: Mapping[str, Value], states: Collection[int]) -> Iterator[Weight]:
    for name, tensor in holder.items():
        if isinstance(tensor, TensorRef) and id(tensor) not in states:
            yield Weight(name, name, tensor)

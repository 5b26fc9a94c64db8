"""A copy of the state in host memory, laid out as the body of a safetensors file.

The memory is used again from save to save: new pages cost more than what is copied into them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from liontool.resume.body_layout import Layout, Place, layout_of
from liontool.resume.copier import Copier
from liontool.resume.host_memory import host_memory
from liontool.resume.snapshot import Body


class HostCopy:
    """Where the tensors of a run are copied to before a save writes them."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[torch.dtype, torch.Size]] = {}
        self._layout = layout_of({})
        self._memory: Tensor | None = None
        self._is_pinned = False
        self._copier = Copier()
        self._targets: dict[Place, Tensor] = {}

    def prepare(self, tensors: Mapping[str, Tensor]) -> None:
        """Make room for tensors of these names, dtypes and shapes, and touch all of its pages.

        Raises:
            StateTypeError: A tensor whose bytes cannot be taken: sparse, quantised, without data.
            ResumeError: There is not so much memory.
        """
        self._room(tensors)

    def take(self, tensors: Mapping[str, Tensor]) -> Body:
        """Copy the tensors, which may change afterwards.

        Args:
            tensors: Those that were given to `prepare`; for others new room is made first.

        Returns:
            The file. It is good until the next call.

        Raises:
            As `prepare`.
        """
        memory = self._room(tensors)
        sources = [_source(tensors[place.name], place) for place in self._targets]
        self._copier.copy(list(self._targets.values()), sources)
        for device in {source.device for source in sources if source.is_cuda}:
            torch.cuda.synchronize(device)
        return Body(self._layout.header, memory.numpy().data[: self._layout.nbytes])

    def _room(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Memory with a view for each tensor."""
        pinned = self._is_pinned or any(tensor.is_cuda for tensor in tensors.values())
        if self._memory is not None and pinned == self._is_pinned and self._fits(tensors):
            return self._memory
        layout = layout_of(tensors)
        self._targets = {}
        if self._memory is None or pinned != self._is_pinned or self._memory.nbytes < layout.nbytes:
            self._memory = None  # the old goes before the new comes
            self._memory = host_memory(layout.nbytes, pinned=pinned)
            self._is_pinned = pinned
        self._targets = _views(self._memory, layout)
        self._kinds = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        self._layout = layout
        return self._memory

    def _fits(self, tensors: Mapping[str, Tensor]) -> bool:
        """Whether the room is one for tensors of these names, dtypes and shapes."""
        kinds, other = self._kinds, (None, None)
        if len(tensors) != len(kinds):
            return False
        for name, tensor in tensors.items():
            dtype, shape = kinds.get(name, other)
            if tensor.dtype != dtype or tensor.shape != shape:
                return False
        return True


def _views(memory: Tensor, layout: Layout) -> dict[Place, Tensor]:
    """What is copied to: a view for every tensor that has bytes."""
    return {place: place.view(memory) for place in layout.places if place.begin < place.end}


def _source(tensor: Tensor, place: Place) -> Tensor:
    """The tensor as the file takes it; bytes of a dtype that the format lacks."""
    if tensor.dtype == place.dtype:
        return tensor
    return tensor.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8)

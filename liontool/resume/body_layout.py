"""Where each tensor lies in the body of a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint.formats.safetensors_file import DTYPES, METADATA, whole_header
from liontool.errors import StateTypeError

_WORDS = {getattr(torch, name): word for word, name in DTYPES.items() if hasattr(torch, name)}
_FACTS = {"format": "pt"}


@dataclass(frozen=True)
class Place:
    """A tensor in the file.

    Attributes:
        name: Its name.
        dtype: As the file says; uint8 for one that the format lacks.
        shape: As the file says; the number of bytes for a dtype that the format lacks.
        begin: First byte in the body, a multiple of the element size.
        end: The byte after the last one.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int

    def view(self, body: Tensor) -> Tensor:
        """The tensor in the memory of a body, which is one of bytes."""
        return body[self.begin : self.end].view(self.dtype).view(self.shape)


@dataclass(frozen=True)
class Layout:
    """A safetensors file without its tensors.

    Attributes:
        header: All bytes before the first tensor, a multiple of eight.
        nbytes: Length of the body.
        places: Every tensor, in the order of the body.
    """

    header: bytes
    nbytes: int
    places: tuple[Place, ...]


def layout_of(tensors: Mapping[str, Tensor]) -> Layout:
    """Lay tensors out without gaps; large elements first, so that all are aligned.

    Raises:
        StateTypeError: A tensor whose bytes cannot be taken: sparse, quantised, without data.
        LiontoolError: The header cannot hold the names.
    """
    kinds = [(name, *_kind(name, tensor)) for name, tensor in tensors.items()]
    kinds.sort(key=lambda kind: -kind[1].itemsize)
    entries: dict[str, Any] = {METADATA: _FACTS}
    places: list[Place] = []
    end = 0
    for name, dtype, shape, nbytes in kinds:
        begin, end = end, end + nbytes
        places.append(Place(name, dtype, shape, begin, end))
        entries[name] = {
            "dtype": _WORDS[dtype],
            "shape": list(shape),
            "data_offsets": [begin, end],
        }
    return Layout(whole_header(entries), end, tuple(places))


def _kind(name: str, tensor: Tensor) -> tuple[torch.dtype, tuple[int, ...], int]:
    """What the file calls dtype and shape, and the bytes."""
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
        raise StateTypeError(f"{name}: a tensor that is {_oddity(tensor)} cannot be saved")
    if name == METADATA:
        raise StateTypeError(f"a tensor cannot be named {METADATA!r}; rename it in the state")
    nbytes = tensor.numel() * tensor.itemsize
    if tensor.dtype in _WORDS:
        return tensor.dtype, tuple(tensor.shape), nbytes
    return torch.uint8, (nbytes,), nbytes


def _oddity(tensor: Tensor) -> str:
    if tensor.is_meta:
        return "on the meta device"
    return "quantised" if tensor.is_quantized else str(tensor.layout)

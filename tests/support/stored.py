"""torch tensors as TensorRefs into files, and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from liontool.checkpoint import values
from liontool.checkpoint.document import ITEM_SIZES, Span, Storage, Stored, TensorRef


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """The elements in order, as they lie in memory."""
    return storage_bytes(tensor.clone(memory_format=torch.contiguous_format))


def storage_bytes(tensor: torch.Tensor) -> bytes:
    """All bytes of the storage that the tensor looks into."""
    return torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy().tobytes()


def stored(
    file: Path,
    tensor: torch.Tensor,
    *,
    byteorder: str = "little",
    before: bytes = b"",
    label: str = "",
) -> TensorRef:
    """Write the storage that `tensor` looks into, after some other bytes; refer to the tensor."""
    data = storage_bytes(tensor)
    dtype = str(tensor.dtype).removeprefix("torch.")
    if byteorder == "big":
        size = ITEM_SIZES[dtype] // (2 if tensor.is_complex() else 1)
        data = np.frombuffer(data, f"u{size}").byteswap().tobytes()
    file.write_bytes(before + data + b"after")
    storage = Storage(Span(file, len(before), len(data)), byteorder)
    source = Stored(storage, tuple(tensor.stride()), tensor.storage_offset())
    return TensorRef(dtype, tuple(tensor.shape), source, label)


def loaded(tensor: TensorRef) -> torch.Tensor:
    """All elements as a torch tensor of the same dtype."""
    dtype = getattr(torch, tensor.dtype)
    if not tensor.numel:
        return torch.empty(tensor.shape, dtype=dtype)
    return torch.frombuffer(bytearray(values.read(tensor)), dtype=dtype).reshape(tensor.shape)

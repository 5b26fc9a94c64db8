"""dtypes by their names, and those that a safetensors file has a word for."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from liontool.checkpoint.formats import safetensors_file

DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
"""Every dtype of this torch."""
NATIVE = frozenset(DTYPES[name] for name in safetensors_file.DTYPES.values() if name in DTYPES)
"""Others are written as bytes."""


def name_of(dtype: torch.dtype) -> str:
    """ "float32" of torch.float32."""
    return str(dtype).removeprefix("torch.")

"""Text that every Python has: the sources of its standard library, byte by byte."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import torch
from torch import Tensor

_BYTES = 4_000_000
_VALIDATION_SHARE = 0.05


def load() -> tuple[Tensor, Tensor]:
    """Training and validation bytes, uint8, one dimension each."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    text = b"".join(path.read_bytes() for path in sorted(folder.glob("*.py")))[:_BYTES]
    data = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    split = int(len(data) * (1 - _VALIDATION_SHARE))
    return data[:split], data[split:]


def batch(data: Tensor, seed: int, *, sequences: int, length: int) -> Tensor:
    """`sequences` x (`length` + 1) tokens, int64, drawn by `seed` alone."""
    generator = torch.Generator().manual_seed(seed)
    starts = torch.randint(len(data) - length, (sequences, 1), generator=generator)
    return data[starts + torch.arange(length + 1)].long()

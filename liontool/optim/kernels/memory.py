"""How tensors lie in memory: kernels go through it from end to end, in whatever order."""

from __future__ import annotations

import torch
from torch import Tensor


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order."""
    expected = 1
    for stride, size in sorted(_steps(tensor)):
        if stride != expected:
            return False
        expected *= size
    return True


def same_layout(tensor: Tensor, like: Tensor) -> bool:
    """Whether equal places in memory are equal places in the tensors, for `like` dense."""
    return tensor.stride() == like.stride() or _steps(tensor) == _steps(like)


def laid_out(tensor: Tensor, like: Tensor) -> Tensor:
    """A copy in the memory layout of another tensor."""
    return torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    """Stride and size of the dimensions that have a stride worth the name."""
    if tensor.numel() == 0:
        return []
    pairs = zip(tensor.stride(), tensor.shape, strict=True)
    return [(stride, size) for stride, size in pairs if size != 1]

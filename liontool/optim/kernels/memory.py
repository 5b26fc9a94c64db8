"""How tensors lie in memory: kernels go through it from end to end, in whatever order."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor


def unreadable(tensor: Tensor) -> str | None:
    """Why the bytes of a tensor cannot be taken as its values, or None if they can."""
    if torch.compiler.is_compiling():
        return None  # what is traced stands for tensors with memory
    if _has_own_operations(type(tensor)):
        return f"a {type(tensor).__name__} does not lie in memory as a plain tensor does"
    if tensor.is_neg():
        return "tensors whose memory holds the negative of their values"
    if tensor.numel() > 0 and tensor.data_ptr() == 0:
        return "tensors without memory"
    return None


def overlap(tensors: Iterable[Tensor]) -> bool:
    """Whether some of these dense tensors share memory; not asked of what is traced."""
    if torch.compiler.is_compiling():
        return False
    stretches = sorted((t.device.type, t.data_ptr(), t.nbytes) for t in tensors if t.numel() > 0)
    return any(
        (device, start + size) > (other, after)
        for (device, start, size), (other, after, _) in pairwise(stretches)
        if device == other
    )


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, in whatever order."""
    if tensor.is_contiguous():
        return True
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


@cache
def _has_own_operations(kind: type[Tensor]) -> bool:
    return kind.__torch_dispatch__ is not Tensor.__torch_dispatch__


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    """Stride and size of the dimensions that have a stride worth the name."""
    if tensor.numel() == 0:
        return []
    pairs = zip(tensor.stride(), tensor.shape, strict=True)
    return [(stride, size) for stride, size in pairs if size != 1]

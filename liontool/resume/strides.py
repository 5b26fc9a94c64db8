"""Which strides lay elements out without gaps and without sharing."""

from __future__ import annotations

from collections.abc import Sequence


def is_dense(shape: Sequence[int], stride: Sequence[int]) -> bool:
    """Whether the elements of a tensor fill their memory, in whatever order of the dimensions."""
    if len(shape) != len(stride) or 0 in shape:
        return False
    expected = 1
    for step, size in sorted(zip(stride, shape, strict=True)):
        if size != 1:
            if step != expected:
                return False
            expected *= size
    return True


def same_layout(shape: Sequence[int], one: Sequence[int], other: Sequence[int]) -> bool:
    """Whether two dense tensors of one shape lie alike; a dimension of size 1 says nothing."""
    return all(a == b for size, a, b in zip(shape, one, other, strict=True) if size != 1)

"""The tables that a launch over many tensors reads: one row a tensor, one record a chunk of it."""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

# Columns of a tensor's row, all int64.
PARAM = tl.constexpr(0)  # addresses of the first elements
EXP_AVG = tl.constexpr(1)
RESIDUAL = tl.constexpr(2)
NUMEL = tl.constexpr(3)  # elements here
GROUP = tl.constexpr(4)
MARKS = tl.constexpr(5)  # its first element in the scratch of marks
KEY = tl.constexpr(6)  # hash of rounding seed and ordinal
INDEX = tl.constexpr(7)  # index of its first element in the whole parameter
WHOLE = tl.constexpr(8)  # elements of the whole parameter, over all shards
RECORD = tl.constexpr(9)  # its first record, and how many it has
RECORDS = tl.constexpr(10)
COLUMNS = tl.constexpr(11)

# Columns of a group's row, float64.
LR = tl.constexpr(0)
DECAY = tl.constexpr(1)
BETA1 = tl.constexpr(2)
GRADIENT1 = tl.constexpr(3)
BETA2 = tl.constexpr(4)
GRADIENT2 = tl.constexpr(5)
SIGN = tl.constexpr(6)  # of the gradient: -1 to maximize
STEP = tl.constexpr(7)
AGREEMENT = tl.constexpr(8)  # 0 without, 1 as published, 2 signed
TOGETHER = tl.constexpr(9)  # 1 if the group agrees as one
CAUTIOUS = tl.constexpr(10)
IN_ALL = tl.constexpr(11)  # elements of the group
WEIGHT_DECAY = tl.constexpr(12)
HORIZON = tl.constexpr(13)  # -1 without
LIMIT = tl.constexpr(14)  # of beta2, reached after the horizon
LR_WIDE = tl.constexpr(15)  # 1 if the lr on the device is float64
LR_PTR = tl.constexpr(16)  # addresses as int64, 0 where the host knows the number
STEP_PTR = tl.constexpr(17)
HYPERS = tl.constexpr(18)


@triton.jit
def chunk_of(records_ptr, rows_ptr, place, CHUNK: tl.constexpr):
    """Tensor, its row, first element and number of elements of a chunk."""
    record = tl.load(records_ptr + place)
    row = rows_ptr + (record >> 32) * COLUMNS
    start = (record & 0xFFFFFFFF) * CHUNK
    return record >> 32, row, start, tl.minimum(tl.load(row + NUMEL) - start, CHUNK).to(tl.int32)


@triton.jit
def elements(address_ptr, start, DTYPE: tl.constexpr, ALIGNMENT: tl.constexpr):
    """Pointer to an element of the tensor whose address is stored there."""
    pointer = tl.load(address_ptr).to(tl.pointer_type(DTYPE))
    return tl.multiple_of(pointer, ALIGNMENT) + start


@triton.jit
def number(group, COLUMN: tl.constexpr):
    """A number of a group as it meets float32."""
    return tl.load(group + COLUMN).to(tl.float32)


@triton.jit
def gradient_factors(group, grad_scale_ptr, clip_ptr):
    """What multiplies the gradient: first sign and GradScaler's scale, then the clip."""
    scale = tl.load(group + SIGN)
    if grad_scale_ptr is not None:
        scale = scale * (1.0 / tl.load(grad_scale_ptr).to(tl.float64))
    clip = 1.0
    if clip_ptr is not None:
        clip = tl.load(clip_ptr).to(tl.float32)
    return scale.to(tl.float32), clip

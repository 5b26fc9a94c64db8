"""The clip by the global norm, from float64 sums in a fixed order: two runs give the same bits."""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

from liontool.optim.kernels.triton_rounding import widened
from liontool.optim.kernels.triton_table import (
    COLUMNS,
    GROUP,
    HYPERS,
    RECORD,
    RECORDS,
    chunk_of,
    elements,
    gradient_factors,
)


@triton.jit
def squares_of_chunks(
    records_ptr, rows_ptr, grads_ptr, hypers_ptr, grad_scale_ptr, found_inf_ptr, squares_ptr,
    G: tl.constexpr, GA: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sum of the squares of one chunk's gradient."""
    if found_inf_ptr is not None:  # noqa: SIM102, Triton would look behind the `and`
        if tl.load(found_inf_ptr) != 0:
            return
    t, row, start, count = chunk_of(records_ptr, rows_ptr, tl.program_id(0), CHUNK)
    g_ptr = elements(grads_ptr + t, start, G, GA)
    group = hypers_ptr + tl.load(row + GROUP) * HYPERS
    scale, _ = gradient_factors(group, grad_scale_ptr, None)
    squares = tl.zeros([BLOCK], tl.float64)
    whole = tl.multiple_of(count // 16 * 16, 16)
    for i in range(0, whole, BLOCK):
        o = i + tl.arange(0, BLOCK)
        g = (widened(tl.load(g_ptr + o, o < whole, 0)) * scale).to(tl.float64)
        squares += g * g
    total = tl.sum(squares)
    if whole < count:
        o = whole + tl.arange(0, 16)
        g = (widened(tl.load(g_ptr + o, o < count, 0)) * scale).to(tl.float64)
        total += tl.sum(g * g)
    tl.store(squares_ptr + tl.program_id(0), total)


@triton.jit
def squares_of_tensors(rows_ptr, chunk_squares_ptr, squares_ptr, BLOCK: tl.constexpr):
    """The sum of the squares of one tensor's gradient, from those of its chunks."""
    row = rows_ptr + tl.program_id(0) * COLUMNS
    first, count = tl.load(row + RECORD), tl.load(row + RECORDS)
    squares = tl.zeros([BLOCK], tl.float64)
    for i in range(0, count, BLOCK):
        o = i + tl.arange(0, BLOCK)
        squares += tl.load(chunk_squares_ptr + first + o, o < count, 0)
    tl.store(squares_ptr + tl.program_id(0), tl.sum(squares))


@triton.jit(do_not_specialize=["tensors"])
def clip_of(squares_ptr, tensors, limit_ptr, clip_ptr, BLOCK: tl.constexpr):
    """What every gradient is multiplied by so that all together are no longer than the limit."""
    squares = tl.zeros([BLOCK], tl.float64)
    for i in range(0, tensors, BLOCK):
        o = i + tl.arange(0, BLOCK)
        squares += tl.load(squares_ptr + o, o < tensors, 0)
    norm, limit = tl.sqrt(tl.sum(squares)), tl.load(limit_ptr)
    # 0 * norm: a norm that is not finite makes every gradient NaN.
    tl.store(clip_ptr, limit / tl.where(norm < limit, limit, norm) + 0 * norm)

"""LionSF and caution in two passes: 20.5 bytes a float32 parameter instead of 28.

New momenta and updates do not depend on the scale, so the first pass reads gradients and momenta,
writes momenta, counts what agrees and marks each update with two bits; the second reads the marks
and the weights.
"""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

from liontool.optim.kernels.triton_lion import load_weight, mixed_sign, rounding_of, store_weight
from liontool.optim.kernels.triton_rounding import narrowed, widened
from liontool.optim.kernels.triton_table import (
    AGREEMENT,
    BETA1,
    BETA2,
    CAUTIOUS,
    COLUMNS,
    DECAY,
    EXP_AVG,
    GRADIENT1,
    GRADIENT2,
    GROUP,
    HYPERS,
    IN_ALL,
    LR,
    MARKS,
    PARAM,
    TOGETHER,
    WHOLE,
    chunk_of,
    elements,
    gradient_factors,
    number,
)


@triton.jit
def mark(
    records_ptr, rows_ptr, grads_ptr, hypers_ptr, grad_scale_ptr, found_inf_ptr, clip_ptr,
    marks_ptr, counts_ptr, G: tl.constexpr, M: tl.constexpr, GA: tl.constexpr, MA: tl.constexpr,
    CAREFUL: tl.constexpr, SIGNED: tl.constexpr, MARKED: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The momentum of one chunk, marks of its updates, and how many agree with their gradient."""
    if found_inf_ptr is not None:  # noqa: SIM102, Triton would look behind the `and`
        if tl.load(found_inf_ptr) != 0:
            return
    t, row, start, count = chunk_of(records_ptr, rows_ptr, tl.program_id(0), CHUNK)
    g_ptr = elements(grads_ptr + t, start, G, GA)
    m_ptr = elements(row + EXP_AVG, start, M, MA)
    marks_ptr += (tl.load(row + MARKS) + start) // MARKED
    group = hypers_ptr + tl.load(row + GROUP) * HYPERS
    scale, clip = gradient_factors(group, grad_scale_ptr, clip_ptr)
    beta1, gradient1 = number(group, BETA1), number(group, GRADIENT1)
    beta2, gradient2 = number(group, BETA2), number(group, GRADIENT2)
    agreeing = tl.zeros([BLOCK // MARKED], tl.int32)
    given = tl.zeros([BLOCK // MARKED], tl.int32)
    whole = tl.multiple_of(count // 16 * 16, 16)
    for i in range(0, whole, BLOCK):
        pack = i // MARKED + tl.arange(0, BLOCK // MARKED)
        more, more_given = mark_elements(
            pack, whole, g_ptr, m_ptr, marks_ptr, scale, clip, beta1, gradient1, beta2, gradient2,
            M, CAREFUL, SIGNED, MARKED,
        )  # fmt: skip
        agreeing += more
        given += more_given
    all_agreeing, all_given = tl.sum(agreeing), tl.sum(given)
    if whole < count:
        pack = whole // MARKED + tl.arange(0, 16 // MARKED)
        more, more_given = mark_elements(
            pack, count, g_ptr, m_ptr, marks_ptr, scale, clip, beta1, gradient1, beta2, gradient2,
            M, CAREFUL, SIGNED, MARKED,
        )  # fmt: skip
        all_agreeing += tl.sum(more)
        all_given += tl.sum(more_given)
    tl.atomic_add(counts_ptr + 2 * t, all_agreeing.to(tl.int64), sem="relaxed")
    if SIGNED:
        tl.atomic_add(counts_ptr + 2 * t + 1, all_given.to(tl.int64), sem="relaxed")


@triton.jit
def mark_elements(
    pack, end, g_ptr, m_ptr, marks_ptr, scale, clip, beta1, gradient1, beta2, gradient2,
    M: tl.constexpr, CAREFUL: tl.constexpr, SIGNED: tl.constexpr, MARKED: tl.constexpr,
):  # fmt: skip
    """Some elements of the chunk, in packs; returns how many of each agree, and have a gradient."""
    o = pack[:, None] * MARKED + tl.arange(0, MARKED)[None, :]
    g = widened(tl.load(g_ptr + o, o < end, 0)) * scale * clip
    m = widened(tl.load(m_ptr + o, o < end, 0))
    update = mixed_sign(g, m, beta1, gradient1)
    tl.store(m_ptr + o, narrowed(beta2 * m + gradient2 * g, M), o < end)
    tl.store(marks_ptr + pack, marks_of(update, g, CAREFUL, MARKED), pack * MARKED < end)
    agreeing = tl.sum((update * g > 0).to(tl.int32), 1)
    return agreeing, tl.sum((g != 0).to(tl.int32), 1) if SIGNED else agreeing


@triton.jit
def marks_of(update, g, CAREFUL: tl.constexpr, MARKED: tl.constexpr):
    """Two bits an update, first come lowest: 0 none, 1 up, 2 down, 3 NaN."""
    mark = (update > 0).to(tl.int32) + 2 * (update < 0).to(tl.int32)
    if CAREFUL:
        mark = tl.where(update * g > 0, mark, 0)
    mark = tl.where(update != update, 3, mark)
    # As many as a thread loads at once, so that each packs its own: an int8 or an int16.
    packed = tl.sum(mark << (2 * tl.arange(0, MARKED))[None, :], 1)
    return packed.to(tl.int8 if MARKED == 4 else tl.int16)


@triton.jit
def apply_marks(
    records_ptr, rows_ptr, hypers_ptr, found_inf_ptr, marks_ptr, sizes_ptr, P: tl.constexpr,
    PA: tl.constexpr, ROUNDING: tl.constexpr, MARKED: tl.constexpr, CHUNK: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The weights of one chunk, from the marks of their updates."""
    if found_inf_ptr is not None:  # noqa: SIM102, Triton would look behind the `and`
        if tl.load(found_inf_ptr) != 0:
            return
    # From the end, since its marks are still in the cache.
    place = tl.num_programs(0) - 1 - tl.program_id(0)
    t, row, start, count = chunk_of(records_ptr, rows_ptr, place, CHUNK)
    p_ptr = elements(row + PARAM, start, P, PA)
    marks_ptr += (tl.load(row + MARKS) + start) // MARKED
    group = hypers_ptr + tl.load(row + GROUP) * HYPERS
    size, decay = tl.load(sizes_ptr + t), number(group, DECAY)
    low_ptr, salt, next_salt, first = rounding_of(row, start, group, P, PA, ROUNDING)
    whole = tl.multiple_of(count // 16 * 16, 16)
    for i in range(0, whole, BLOCK):
        pack = i // MARKED + tl.arange(0, BLOCK // MARKED)
        apply_elements(
            pack, whole, p_ptr, low_ptr, marks_ptr, size, decay, salt, next_salt, first, P,
            ROUNDING, MARKED,
        )  # fmt: skip
    if whole < count:
        pack = whole // MARKED + tl.arange(0, 16 // MARKED)
        apply_elements(
            pack, count, p_ptr, low_ptr, marks_ptr, size, decay, salt, next_salt, first, P,
            ROUNDING, MARKED,
        )  # fmt: skip


@triton.jit
def apply_elements(
    pack, end, p_ptr, low_ptr, marks_ptr, size, decay, salt, next_salt, first, P: tl.constexpr,
    ROUNDING: tl.constexpr, MARKED: tl.constexpr,
):  # fmt: skip
    """Some elements of the chunk, in packs."""
    o = pack[:, None] * MARKED + tl.arange(0, MARKED)[None, :]
    update = updates_of(tl.load(marks_ptr + pack, pack * MARKED < end, 0), MARKED)
    p = load_weight(p_ptr, low_ptr, o, o < end, ROUNDING)
    p = p * decay - size * update
    store_weight(p_ptr, low_ptr, o, o < end, p, salt, next_salt, first, P, ROUNDING)


@triton.jit
def updates_of(marks, MARKED: tl.constexpr):
    """The updates that `marks_of` has marked."""
    mark = (marks.to(tl.int32)[:, None] >> (2 * tl.arange(0, MARKED))[None, :]) & 3
    update = (mark == 1).to(tl.float32) - (mark == 2).to(tl.float32)
    return tl.where(mark == 3, float("nan"), update)


@triton.jit(do_not_specialize=["tensors"])
def sizes_of(rows_ptr, hypers_ptr, counts_ptr, sizes_ptr, tensors, BLOCK: tl.constexpr):
    """What the updates of each tensor are multiplied by: lr, agreement and caution in float64."""
    t = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = t < tensors
    row = rows_ptr + t * COLUMNS
    place = tl.load(row + GROUP, mask, 0)
    group = hypers_ptr + place * HYPERS
    whole = tl.load(row + WHOLE, mask, 1)
    # Counts of the tensor, or of its group, which stand behind those of the tensors.
    together = tl.load(group + TOGETHER, mask, 0) != 0
    cell = counts_ptr + 2 * tl.where(together, tensors + place, t)
    agreement = tl.load(group + AGREEMENT, mask, 0)
    counted = tl.where(together, tl.load(group + IN_ALL, mask, 1).to(tl.int64), whole)
    counted = tl.where(agreement == 2, tl.load(cell + 1, mask, 1), counted)
    surplus = 2.0 * share(tl.load(cell, mask, 0), counted) - 1.0
    factor = tl.where((agreement == 2) & (surplus < 0), 0.0, tl.abs(surplus))
    factor = tl.where((agreement == 0) | (counted == 0), 1.0, factor)
    size = tl.load(group + LR, mask, 0) * factor
    # Caution: the mean of all updates stays what it is.
    agreed = share(tl.load(counts_ptr + 2 * t, mask, 0), whole)
    least = tl.full((), 1e-5, tl.float64)
    careful = size * (1.0 / tl.where(agreed < least, least, agreed))
    size = tl.where(tl.load(group + CAUTIOUS, mask, 0) != 0, careful, size)
    tl.store(sizes_ptr + t, size.to(tl.float32), mask)


@triton.jit
def share(part, whole):
    """`part / whole` in float64; 1 where `whole` is 0."""
    nothing = whole == 0
    return tl.where(nothing, 1.0, part.to(tl.float64) / tl.where(nothing, 1, whole).to(tl.float64))

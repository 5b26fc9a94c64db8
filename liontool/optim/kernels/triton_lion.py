"""Lion in one pass over weights, gradients and momenta: `reference.updated` on chunks."""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

from liontool.optim.kernels.triton_rounding import (
    combined,
    key_of_step,
    narrowed,
    salts,
    split,
    stochastic,
    widened,
)
from liontool.optim.kernels.triton_table import (
    BETA1,
    BETA2,
    DECAY,
    EXP_AVG,
    GRADIENT1,
    GRADIENT2,
    GROUP,
    HYPERS,
    INDEX,
    KEY,
    LR,
    PARAM,
    RESIDUAL,
    STEP,
    chunk_of,
    elements,
    gradient_factors,
    number,
)


@triton.jit
def lion(
    records_ptr, rows_ptr, grads_ptr, hypers_ptr, grad_scale_ptr, found_inf_ptr, clip_ptr,
    P: tl.constexpr, G: tl.constexpr, M: tl.constexpr, PA: tl.constexpr, GA: tl.constexpr,
    MA: tl.constexpr, ROUNDING: tl.constexpr, CHUNK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A step on one chunk of one tensor."""
    if found_inf_ptr is not None:  # noqa: SIM102, Triton would look behind the `and`
        if tl.load(found_inf_ptr) != 0:
            return
    t, row, start, count = chunk_of(records_ptr, rows_ptr, tl.program_id(0), CHUNK)
    p_ptr = elements(row + PARAM, start, P, PA)
    g_ptr = elements(grads_ptr + t, start, G, GA)
    m_ptr = elements(row + EXP_AVG, start, M, MA)
    group = hypers_ptr + tl.load(row + GROUP) * HYPERS
    scale, clip = gradient_factors(group, grad_scale_ptr, clip_ptr)
    lr, decay = number(group, LR), number(group, DECAY)
    beta1, gradient1 = number(group, BETA1), number(group, GRADIENT1)
    beta2, gradient2 = number(group, BETA2), number(group, GRADIENT2)
    low_ptr, salt, next_salt, first = rounding_of(row, start, group, P, PA, ROUNDING)
    # A mask that is constant over 16 elements keeps accesses wide; 15 at most are left over.
    whole = tl.multiple_of(count // 16 * 16, 16)
    for i in range(0, whole, BLOCK):
        o = i + tl.arange(0, BLOCK)
        lion_elements(
            o, o < whole, p_ptr, g_ptr, m_ptr, low_ptr, scale, clip, lr, decay, beta1, gradient1,
            beta2, gradient2, salt, next_salt, first, P, M, ROUNDING,
        )  # fmt: skip
    if whole < count:
        o = whole + tl.arange(0, 16)
        lion_elements(
            o, o < count, p_ptr, g_ptr, m_ptr, low_ptr, scale, clip, lr, decay, beta1, gradient1,
            beta2, gradient2, salt, next_salt, first, P, M, ROUNDING,
        )  # fmt: skip


@triton.jit
def lion_elements(
    o, mask, p_ptr, g_ptr, m_ptr, low_ptr, scale, clip, lr, decay, beta1, gradient1, beta2,
    gradient2, salt, next_salt, first, P: tl.constexpr, M: tl.constexpr, ROUNDING: tl.constexpr,
):  # fmt: skip
    """Some elements of the chunk: load, decay, update, momentum, store."""
    p = load_weight(p_ptr, low_ptr, o, mask, ROUNDING)
    g = widened(tl.load(g_ptr + o, mask, 0)) * scale * clip
    m = widened(tl.load(m_ptr + o, mask, 0))
    update = mixed_sign(g, m, beta1, gradient1)
    p = p * decay - lr * update
    m = beta2 * m + gradient2 * g
    store_weight(p_ptr, low_ptr, o, mask, p, salt, next_salt, first, P, ROUNDING)
    tl.store(m_ptr + o, narrowed(m, M), mask)


@triton.jit
def mixed_sign(g, m, beta1, gradient1):
    """The sign of the mix of momentum and gradient, NaN where that is not finite."""
    mix = beta1 * m + gradient1 * g
    return (mix > 0).to(tl.float32) - (mix < 0).to(tl.float32) + 0 * mix


@triton.jit
def rounding_of(row, start, group, P: tl.constexpr, PA: tl.constexpr, ROUNDING: tl.constexpr):
    """What the weights of a chunk are rounded with: residuals, or salts and index of the noise."""
    if ROUNDING == "split":
        return elements(row + RESIDUAL, start, tl.int16, PA), 0, 0, 0
    elif ROUNDING == "stochastic":
        key = key_of_step(tl.load(row + KEY), tl.load(group + STEP).to(tl.int64))
        salt, next_salt, first = salts(key, tl.load(row + INDEX) + start)
        return 0, salt, next_salt, first
    else:
        return 0, 0, 0, 0


@triton.jit
def load_weight(p_ptr, low_ptr, o, mask, ROUNDING: tl.constexpr):
    """Weights as float32."""
    p = tl.load(p_ptr + o, mask, 0)
    if ROUNDING == "split":
        return combined(p, tl.load(low_ptr + o, mask, 0))
    else:
        return widened(p)


@triton.jit
def store_weight(
    p_ptr, low_ptr, o, mask, wide, salt, next_salt, first, P: tl.constexpr, ROUNDING: tl.constexpr,
):  # fmt: skip
    """Round weights and store them."""
    if ROUNDING == "split":
        hi, lo = split(wide)
        tl.store(p_ptr + o, hi, mask)
        tl.store(low_ptr + o, lo, mask)
    elif ROUNDING == "stochastic":
        tl.store(p_ptr + o, stochastic(wide, salt, next_salt, first, o), mask)
    else:
        tl.store(p_ptr + o, narrowed(wide, P), mask)

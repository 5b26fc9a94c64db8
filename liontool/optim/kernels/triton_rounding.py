"""`rounding.py` for kernels, bit for bit: the same integer steps, with the hash in uint32.

bfloat16 travels as int16, since conversions differ between devices and Triton's interpreter.
"""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

BFLOAT16 = tl.constexpr(tl.int16)
QUIET_NAN = tl.constexpr(0x400000)
UPPER_HALF = tl.constexpr(-0x10000)
INFINITY = tl.constexpr(0x7F80)


@triton.jit
def widened(value):
    """float32 of float32, float16 or bfloat16."""
    if value.dtype == BFLOAT16:
        return (value.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    else:
        return value.to(tl.float32)


@triton.jit
def narrowed(wide, DTYPE: tl.constexpr):
    """float32 rounded to the nearest value of a dtype, halves to even."""
    if DTYPE == BFLOAT16:
        bits = bits_of(wide)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).to(tl.int16)
    else:
        return wide.to(DTYPE)


@triton.jit
def split(wide):
    """The nearest bfloat16 (halves away from zero) and the bits that it lacks."""
    bits = bits_of(wide)
    hi = (bits + 0x8000) >> 16
    return hi.to(tl.int16), (bits - (hi << 16)).to(tl.int16)


@triton.jit
def combined(hi, lo):
    """The float32 that `split` took apart."""
    bits = hi.to(tl.int32)
    lo = lo.to(tl.int32)
    magnitude = bits & 0x7FFF
    lo = tl.where((magnitude == 0) & (lo < 0), 0, lo)
    lo = tl.where((magnitude >= INFINITY) & (lo > 0), 0, lo)
    return ((bits << 16) + lo).to(tl.float32, bitcast=True)


@triton.jit
def stochastic(wide, salt, next_salt, first, offset):
    """One of the two bfloat16 around each value, the nearer one more often.

    `first` is the lower word of the index of element 0, `salt` the hash of its upper word, and
    `next_salt` that of the next upper word.
    """
    index = first + offset.to(tl.uint32)
    noise = mix(index ^ tl.where(index < first, next_salt, salt)) & 0xFFFF
    return ((bits_of(wide) + noise.to(tl.int32)) >> 16).to(tl.int16)


@triton.jit
def salts(key, index):
    """What `stochastic` needs for a chunk: two salts and the lower word of its first index."""
    upper = key + (index >> 32).to(tl.uint32)
    return mix(upper), mix(upper + 1), index.to(tl.uint32)


@triton.jit
def key_of_step(key, step):
    """The key of a parameter in one step, from what `rounding.key` makes of seed and ordinal."""
    key = mix(key.to(tl.uint32) ^ step.to(tl.uint32))
    return mix(key ^ (step >> 32).to(tl.uint32))


@triton.jit
def mix(x):
    """A hash of 32 bits to 32 bits, one to one: lowbias32."""
    x = x ^ (x >> 16)
    x = x * 0x7FEB352D
    x = x ^ (x >> 15)
    x = x * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def bits_of(wide):
    """The bits of float32 as int32; NaN is quiet and has its lower half 0, so that none round."""
    bits = wide.to(tl.int32, bitcast=True)
    return tl.where(wide != wide, (bits & UPPER_HALF) | QUIET_NAN, bits)

"""float32 weights kept in bfloat16: exactly, with 16 more bits beside them, or right on average.

The hash is lowbias32 of Christopher Wellons, https://github.com/skeeto/hash-prospector (Unlicense).

Pure functions of eager integer arithmetic: float operations may flush subnormals to zero, and
conversions differ in the bits that they give NaN. No integer here leaves the range of its dtype.
"""

from __future__ import annotations

from typing import overload

import torch
from torch import Tensor

WORD = 0xFFFFFFFF
START = 0x9E3779B9  # any number but 0, which the hash leaves as it is
QUIET_NAN = 0x400000
UPPER_HALF = -0x10000
INFINITY = 0x7F80  # as bfloat16


def split(wide: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest bfloat16 (halves away from zero) and, in int16, the bits that it lacks.

    As integers, `wide = (hi << 16) + lo`. Finite values come back from `combined` bit for bit, the
    largest too, for which `hi` is infinite. Infinities and NaN have `lo` 0.

    Args:
        wide: float32, of any shape and layout.

    Returns:
        `hi`, bfloat16, and `lo`, int16, of the same shape.
    """
    bits = _bits(wide)
    hi = (bits + 0x8000) >> 16
    lo = bits - (hi << 16)
    return hi.to(torch.int16).view(torch.bfloat16), lo.to(torch.int16)


def combined(hi: Tensor, lo: Tensor) -> Tensor:
    """The float32 that `split` took apart.

    Whatever `hi` has become since, the result rounds to it: where it is zero, a negative `lo`
    counts as 0, and where it is not finite, a positive one. So NaN comes only of NaN.

    Args:
        hi: bfloat16, of any shape and layout.
        lo: int16, of the same shape.
    """
    bits = hi.view(torch.int16)
    magnitude = bits & 0x7FFF
    lo = torch.where(magnitude == 0, lo.clamp(min=0), lo)
    lo = torch.where(magnitude >= INFINITY, lo.clamp(max=0), lo)
    return ((bits.to(torch.int32) << 16) + lo).view(torch.float32)


def stochastic(wide: Tensor, key: int | Tensor, index: Tensor) -> Tensor:
    """One of the two bfloat16 around each value, the nearer one more often: right on average.

    A bfloat16 stays what it is, and so do infinities and NaN. Which neighbour it is depends on
    `key` and on the element's own index, not on its place in memory.

    Args:
        wide: float32, of any shape and layout.
        key: From `key`; another one for each step and each parameter.
        index: int64, of the shape of `wide`: the place of each element in the whole parameter.
    """
    salt = mix((key + (index >> 32)) & WORD)
    noise = mix((index & WORD) ^ salt) & 0xFFFF
    hi = (_bits(wide) + noise.to(torch.int32)) >> 16
    return hi.to(torch.int16).view(torch.bfloat16)


def key(seed: int, step: int | Tensor, ordinal: int) -> int | Tensor:
    """What `stochastic` rounds one parameter with in one step: a number of 32 bits.

    Args:
        seed: Of the run.
        step: Number of the step; the result is a tensor if it is one.
        ordinal: Number of the parameter.
    """
    result: int | Tensor = START
    for number in (seed, ordinal, step):  # what may be a tensor comes last, and costs least there
        result = mix(result ^ (number & WORD))
        result = mix(result ^ ((number >> 32) & WORD))
    return result


@overload
def mix(x: int) -> int: ...


@overload
def mix(x: Tensor) -> Tensor: ...


def mix(x: int | Tensor) -> int | Tensor:
    """A hash of 32 bits to 32 bits, one to one: lowbias32.

    Args:
        x: A number, or int64 of any shape, in [0, 2**32).
    """
    x = x ^ (x >> 16)
    x = (x * 0x7FEB352D) & WORD
    x = x ^ (x >> 15)
    x = (x * (0x846CA68B - 2**32)) & WORD  # the same modulo 2**32, and too small to overflow int64
    return x ^ (x >> 16)


def _bits(wide: Tensor) -> Tensor:
    """The bits of float32 as int32; NaN is quiet and has its lower half 0, so that none round."""
    bits = wide.view(torch.int32)
    return torch.where(wide.isnan(), (bits & UPPER_HALF) | QUIET_NAN, bits)

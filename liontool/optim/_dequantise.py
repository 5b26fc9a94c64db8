"""Numbers that other Lions keep in their own codes: 8-bit momenta, corrections of narrow weights.

The codes follow bitsandbytes (MIT), https://github.com/bitsandbytes-foundation/bitsandbytes, and
FlashOptim (Apache 2.0), https://github.com/databricks/flashoptim.
"""

from __future__ import annotations

import torch
from torch import Tensor

_BNB_BLOCKS = (256, 2048)  # 2048 before version 0.44
_FLASH_BLOCKS = (32,)


def blockwise(codes: Tensor, levels: Tensor, scales: Tensor) -> Tensor:
    """bitsandbytes' 8-bit numbers: a table of levels in [-1, 1], a scale for 256 elements."""
    return _scaled(levels.float()[codes.long()], scales, _BNB_BLOCKS)


def softsign(codes: Tensor, scales: Tensor) -> Tensor:
    """FlashOptim's 8-bit numbers: y = 2x / (1 + |x|) in steps of 1/127, a scale for 32 elements."""
    squeezed = codes.float() / 127
    return _scaled(squeezed / (2 - squeezed.abs()), scales, _FLASH_BLOCKS)


def corrected(weight: Tensor, error: Tensor, steps: int) -> Tensor:
    """FlashOptim's wide weight: the error is in parts of half the distance to the next bfloat16.

    Args:
        weight: bfloat16.
        error: Integers from -steps to steps.
        steps: 127 or 32767.
    """
    exponent = ((weight.view(torch.int16).int() & 0x7FFF) >> 7).clamp(min=1) - 127
    # Half the distance can be less than the smallest normal float; its root cannot.
    log_half = (exponent - 8).float()
    first = (log_half / 2).floor()
    part = error.float() / steps
    return weight.float() + part * first.exp2() * (log_half - first).exp2()


def residual(weight: Tensor, wide: Tensor) -> Tensor:
    """What bfloat16 weights lack of wide ones, in the int16 of `rounding="split"`.

    The weights stay what they are. So a wide weight that is nearer to another bfloat16 becomes the
    last one of this.
    """
    high = weight.view(torch.int16).int() << 16
    bits = wide.float().view(torch.int32)
    low = (bits - high).clamp(-0x8000, 0x7FFF)
    fits = wide.isfinite() & weight.isfinite() & ((bits ^ high) >= 0)
    return torch.where(fits, low, 0).to(torch.int16)


def _scaled(values: Tensor, scales: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Values by the scale of their block, whose size the number of scales tells."""
    for block in blocks:
        if scales.numel() == -(-values.numel() // block):
            each = scales.float().reshape(-1).repeat_interleave(block)[: values.numel()]
            return values * each.reshape(values.shape)
    raise ValueError(
        f"8-bit state of {values.numel()} elements has {scales.numel()} scales, must have one for "
        f"{' or '.join(map(str, blocks))} elements"
    )

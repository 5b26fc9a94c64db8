"""The numbers of a group that only the device knows: lr and step number as tensors."""
# mypy: ignore-errors
# Triton compiles these functions itself; they are no Python that mypy could check.

from __future__ import annotations

import triton
import triton.language as tl

from liontool.optim.kernels.triton_table import (
    BETA2,
    DECAY,
    GRADIENT2,
    HORIZON,
    HYPERS,
    LIMIT,
    LR,
    LR_PTR,
    LR_WIDE,
    STEP,
    STEP_PTR,
    WEIGHT_DECAY,
)


@triton.jit
def read_hypers(hypers_ptr):
    """`reference.coefficients` and `momentum_beta` of one group, in float64."""
    group = hypers_ptr + tl.program_id(0) * HYPERS
    lr_address = tl.load(group + LR_PTR).to(tl.int64, bitcast=True)
    if lr_address != 0:
        wide = tl.load(group + LR_WIDE) != 0
        lr64 = tl.load(lr_address.to(tl.pointer_type(tl.float64)), wide, 0)
        lr32 = tl.load(lr_address.to(tl.pointer_type(tl.float32)), wide == 0, 0)
        lr = tl.where(wide, lr64, lr32.to(tl.float64))
        tl.store(group + LR, lr)
        tl.store(group + DECAY, 1.0 - lr * tl.load(group + WEIGHT_DECAY))
    step_address = tl.load(group + STEP_PTR).to(tl.int64, bitcast=True)
    if step_address != 0:
        step = (tl.load(step_address.to(tl.pointer_type(tl.int64))) + 1).to(tl.float64)
        tl.store(group + STEP, step)
        horizon = tl.load(group + HORIZON)
        if horizon >= 0:
            beta2 = 1.0 - 1.0 / (horizon + step)
            limit = tl.load(group + LIMIT)
            beta2 = tl.where(beta2 > limit, limit, beta2)
            tl.store(group + BETA2, beta2)
            tl.store(group + GRADIENT2, 1.0 - beta2)

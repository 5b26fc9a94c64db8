"""Which tensors the Triton kernels take, and what a step is told; imports no Triton."""

from __future__ import annotations

import importlib.util
import os
from typing import NamedTuple

import torch
from torch import Tensor

from liontool.optim.kernels.memory import is_dense, same_layout, unreadable

DTYPES = (torch.float32, torch.float16, torch.bfloat16)
WIDTH = 16  # bytes that a thread loads at once, from addresses that are multiples of it


class Entry(NamedTuple):
    """A parameter that a plan steps on; plain local real tensors of one layout.

    Attributes:
        param: Its weights.
        exp_avg: Its momentum.
        residual: What its bfloat16 weights lack of float32, or None.
        group: Place of its group among the groups of the plan.
        ordinal: Place among all parameters of the optimizer; seeds stochastic rounding.
        offset: Place of its first element in the whole parameter; the others follow.
        whole: Elements of the whole parameter, over all shards; None if this is the whole.
    """

    param: Tensor
    exp_avg: Tensor
    residual: Tensor | None
    group: int
    ordinal: int = 0
    offset: int = 0
    whole: int | None = None

    @property
    def all_elements(self) -> int:
        """Elements of the whole parameter."""
        return self.param.numel() if self.whole is None else self.whole

    def tensors(self) -> list[Tensor]:
        """What the step changes."""
        changed = [self.param, self.exp_avg]
        return changed if self.residual is None else [*changed, self.residual]


class Hypers(NamedTuple):
    """The numbers and options of a parameter group in one step.

    Attributes:
        lr: A tensor is read on the device.
        weight_decay: Part of the weights that is taken off per unit of `lr`.
        betas: Weight of the momentum in the update, and in the next momentum.
        horizon: See `reference.momentum_beta`.
        step: Steps done before this one; a tensor is read on the device.
        maximize: Go up.
        cautious: Leave out updates that point against their gradient: a `cautious_factor` of 0.
        agreement: LionSF's, or None for Lion.
        pow: LionSF's exponent.
        rounding: Of bfloat16 weights.
        seed: Of stochastic rounding.
    """

    lr: float | Tensor
    weight_decay: float
    betas: tuple[float, float]
    horizon: float | None = None
    step: int | Tensor = 0
    maximize: bool = False
    cautious: bool = False
    agreement: str | None = None
    pow: float = 1.0
    rounding: str = "nearest"
    seed: int = 0

    @property
    def on_device(self) -> bool:
        """Whether only the device knows some of the numbers."""
        return isinstance(self.lr, Tensor) or isinstance(self.step, Tensor)

    @property
    def signed(self) -> bool:
        """Whether disagreement counts as 0, and zero gradients do not count."""
        return self.agreement is not None and self.agreement.endswith("_signed")

    @property
    def together(self) -> bool:
        """Whether the group agrees as one."""
        return self.agreement is not None and self.agreement.startswith("group")


def missing() -> str | None:
    """Why there are no Triton kernels here, or None if there are."""
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if interpreted() or (torch.cuda.is_available() and torch.version.hip is None):
        return None
    return "no CUDA device"


def interpreted() -> bool:
    """Whether Triton runs its kernels in Python, on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def reason_against(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    residual: Tensor | None,
    rounding: str = "nearest",
) -> str | None:
    """Why the kernels cannot do the step of a parameter, or None if they can."""
    if param.device.type != ("cpu" if interpreted() else "cuda"):
        return f"no kernel for {param.device.type}"
    named = {"weights": param, "gradients": grad, "momenta": exp_avg}
    for name, tensor in named.items():
        if tensor.dtype not in DTYPES:
            return f"no kernel for {name} in {tensor.dtype}"
        if tensor.device != param.device:
            return f"{name} on {tensor.device}, weights on {param.device}"
        if tensor.shape != param.shape or tensor.layout != torch.strided:
            return f"{name} are no plain tensor of the shape of the weights"
    state = [exp_avg] if residual is None else [exp_avg, residual]
    # A graph needs no operation for that: the operator is given gradients that are resolved.
    read = grad if torch.compiler.is_compiling() else grad.resolve_neg()
    for tensor in (param, read, *state):
        if reason := unreadable(tensor):
            return f"no kernel for {reason}"
    if not is_dense(param):
        return "weights that overlap or have gaps"
    if not all(same_layout(tensor, param) for tensor in state):
        return "state in another memory layout than the weights"
    if rounding == "stochastic" and param.dtype == torch.bfloat16 and not param.is_contiguous():
        return "stochastic rounding of weights that are not contiguous"
    return None

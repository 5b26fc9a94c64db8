"""Which kernels there are, and which parameter groups they can do; calls none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liontool.optim.kernels import cpu_library, triton_layout

Group = dict[str, Any]

# Options that are computed with torch's operations, on tensors that a kernel would not see.
_PLAIN = (
    "differentiable",
    "cautious_wd",
    "clipnorm",
    "clipvalue",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)


@dataclass(frozen=True)
class Kernel:
    """A kernel, as far as it is known before it is called.

    Attributes:
        name: "cpu" or "triton".
        dtypes: Of the weights that it takes.
        lacks: Names of options that it does not have.
        factors: The values of `cautious_factor` that it has; None is all.
        takes_scale: Whether it takes GradScaler's scale and flag.
        missing: Why it is not there, or None if it is.
        reaches: Whether it reaches the memory of a kind of device.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    lacks: tuple[str, ...]
    factors: tuple[float, ...] | None
    takes_scale: bool
    missing: Callable[[], str | None]
    reaches: Callable[[str], bool]

    def option_against(self, group: Group) -> str | None:
        """An option of a group that the kernel does not have, as "name=value", or None."""
        for name in (*_PLAIN, *self.lacks):
            if group[name]:
                return f"{name}={group[name]}"
        if group["nonfinite"] != "propagate":
            return f"nonfinite={group['nonfinite']!r}"
        if group["rounding"] == "stochastic" and self.name == "cpu":
            return "rounding='stochastic'"
        if self.factors is not None and group["cautious_factor"] not in self.factors:
            return f"cautious_factor={group['cautious_factor']}"
        return None

    def tensor_against(self, param: Tensor) -> str | None:
        """Why the kernel cannot do a parameter, as far as device and dtype tell, or None."""
        if not self.reaches(param.device.type):
            return f"the {self.name} kernel does not reach {param.device.type}"
        if param.dtype not in self.dtypes:
            return f"the {self.name} kernel does not have {param.dtype}"
        return None


CPU = Kernel(
    "cpu",
    (torch.float32, torch.bfloat16),
    ("global_clipnorm", "capturable"),
    None,
    False,
    cpu_library.why_none,
    lambda device: device == "cpu",
)
TRITON = Kernel(
    "triton",
    (torch.float32, torch.bfloat16, torch.float16),
    (),
    (0.0, 1.0),
    True,
    triton_layout.missing,
    lambda device: device == ("cpu" if triton_layout.interpreted() else "cuda"),
)
KERNELS = (CPU, TRITON)


def for_groups(groups: Sequence[Group]) -> Kernel | None:
    """The kernel for all of an optimizer's groups together, if there is one and it is wanted."""
    if not all(_wanted(group) for group in groups):
        return None
    return next((kernel for kernel in KERNELS if _does(kernel, groups)), None)


def check(group: Group) -> None:
    """Raise if `fused=True` asks for a kernel that is not there.

    Raises:
        RuntimeError: There is none for the device or the dtype of a parameter.
        ValueError: There is one, but not with an option of the group.
    """
    refusal = refused(group)
    if refusal is not None:
        raise refusal


def refused(group: Group) -> Exception | None:
    """Why `fused=True` cannot be had, or None if it can or is not asked for."""
    if not group["fused"]:
        return None
    way_out = "leave fused out for the fastest path that there is"
    for param in group["params"]:
        kernel = next((each for each in KERNELS if each.reaches(param.device.type)), None)
        option = None if kernel is None else kernel.option_against(group)
        if kernel is not None and option is not None:
            return ValueError(
                f"Invalid fused: True with {option}, which the {kernel.name} kernel does not have; "
                f"{way_out}"
            )
        reason: str | None = "there is none for this device"
        if kernel is not None:
            reason = kernel.missing() or kernel.tensor_against(param)
        if reason is not None:
            wanted = f"{param.dtype} on {param.device.type}"
            return RuntimeError(f"`fused=True` requires a kernel for {wanted}: {reason}; {way_out}")
    return None


def _wanted(group: Group) -> bool:
    return bool(group["fused"]) or (group["fused"] is None and group["foreach"] is None)


def _does(kernel: Kernel, groups: Sequence[Group]) -> bool:
    # `missing` comes last: it may compile, for which nobody with weights elsewhere should wait.
    return (
        all(kernel.option_against(group) is None for group in groups)
        and all(
            kernel.tensor_against(param) is None for group in groups for param in group["params"]
        )
        and kernel.missing() is None
    )

"""Which kernels there are, and which parameter groups they can do; calls none of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from liontool.optim import _sharding
from liontool.optim.kernels import cpu_library, triton_layout
from liontool.optim.kernels.memory import is_dense, overlap, unreadable

Group = dict[str, Any]

# Options that are computed with torch's operations, on tensors that a kernel would not see.
_PLAIN = (
    "differentiable",
    "clipnorm",
    "clipvalue",
    "loss_scale_factor",
    "gradient_accumulation_steps",
)

_WAY_OUT = "leave fused out for the fastest path that there is"


@dataclass(frozen=True)
class Kernel:
    """A kernel, as far as it is known before it is called.

    Attributes:
        name: "cpu" or "triton".
        dtypes: Of the weights that it takes.
        lacks: Names of options that it does not have.
        roundings: The values of `rounding` that it has.
        factors: The values of `cautious_factor` that it has; None is all.
        takes_scale: Whether it takes GradScaler's scale and flag.
        is_traced: Whether torch.compile takes its step into a graph, as it is.
        missing: Why it is not there, or None if it is.
        reaches: Whether it reaches the memory of a kind of device.
    """

    name: str
    dtypes: tuple[torch.dtype, ...]
    lacks: tuple[str, ...]
    roundings: tuple[str, ...]
    factors: tuple[float, ...] | None
    takes_scale: bool
    is_traced: bool
    missing: Callable[[], str | None]
    reaches: Callable[[str], bool]

    def option_against(self, group: Group) -> str | None:
        """An option of a group that the kernel does not have, as "name=value", or None."""
        for name in self.lacks:
            if group[name]:
                return f"{name}={group[name]}"
        if group["nonfinite"] != "propagate":
            return f"nonfinite={group['nonfinite']!r}"
        if group["rounding"] not in self.roundings:
            return f"rounding={group['rounding']!r}"
        if self.factors is not None and group["cautious_factor"] not in self.factors:
            return f"cautious_factor={group['cautious_factor']}"
        return _over_devices([group])

    def tensor_against(self, param: Tensor) -> str | None:
        """Why the kernel cannot do a parameter, as far as that alone tells, or None."""
        if not self.reaches(param.device.type):
            return f"the {self.name} kernel does not reach {param.device.type}"
        if param.dtype not in self.dtypes:
            return f"the {self.name} kernel does not have {param.dtype}"
        weight = _sharding.local(param)
        if reason := unreadable(weight):
            return f"the {self.name} kernel does not have {reason}"
        if not is_dense(weight):
            return f"the {self.name} kernel does not have weights with gaps in memory"
        return None


CPU = Kernel(
    "cpu",
    (torch.float32, torch.bfloat16),
    (*_PLAIN, "global_clipnorm", "capturable"),
    ("nearest", "split"),
    None,
    False,
    False,
    cpu_library.why_none,
    lambda device: device == "cpu",
)
TRITON = Kernel(
    "triton",
    (torch.float32, torch.bfloat16, torch.float16),
    (*_PLAIN, "cautious_wd"),
    ("nearest", "split", "stochastic"),
    (0.0, 1.0),
    True,
    True,
    triton_layout.missing,
    lambda device: device == ("cpu" if triton_layout.interpreted() else "cuda"),
)
KERNELS = (CPU, TRITON)


def for_groups(groups: Sequence[Group]) -> Kernel | None:
    """The kernel for all of an optimizer's groups together, if there is one and it is wanted.

    While torch.compile traces, only one that it takes as it is.
    """
    if not all(_wanted(group) for group in groups):
        return None
    for kernel in KERNELS:
        if (kernel.is_traced or not torch.compiler.is_compiling()) and _does(kernel, groups):
            return kernel
    return None


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
    for param in group["params"]:
        kernel = next((each for each in KERNELS if each.reaches(param.device.type)), None)
        option = None if kernel is None else kernel.option_against(group)
        if kernel is not None and option is not None:
            return ValueError(
                f"Invalid fused: True with {option}, which the {kernel.name} kernel does not have; "
                f"{_WAY_OUT}"
            )
        reason: str | None = "there is none for this device"
        if kernel is not None:
            reason = kernel.missing() or kernel.tensor_against(param)
        if reason is not None:
            return _none_for(param, reason)
    if group["params"] and overlap(map(_sharding.local, group["params"])):
        return _none_for(group["params"][0], "parameters share memory")
    return None


def check_reason(group: Group, param: Tensor, reason: str) -> None:
    """Raise for what a kernel found against a parameter, if `fused=True` asks for it.

    Raises:
        RuntimeError: It does.
    """
    if group["fused"]:
        raise _none_for(param, reason)


def _none_for(param: Tensor, reason: str) -> RuntimeError:
    wanted = f"{param.dtype} on {param.device.type}"
    return RuntimeError(f"`fused=True` requires a kernel for {wanted}: {reason}; {_WAY_OUT}")


def _wanted(group: Group) -> bool:
    return bool(group["fused"]) or (group["fused"] is None and group["foreach"] is None)


def _does(kernel: Kernel, groups: Sequence[Group]) -> bool:
    # `missing` comes last: it may compile, for which nobody with weights elsewhere should wait.
    return (
        all(kernel.option_against(group) is None for group in groups)
        and all(
            kernel.tensor_against(param) is None for group in groups for param in group["params"]
        )
        and _over_devices(groups) is None
        and not overlap(_sharding.local(param) for group in groups for param in group["params"])
        and kernel.missing() is None
    )


def _over_devices(groups: Sequence[Group]) -> str | None:
    """An option that sums over several devices, or None. Kernels do each device by itself.

    Of one group, what `fused=True` is refused with; a norm of groups each on one device, which is
    known only when all are there, takes torch's operations in silence.
    """
    for group in groups:
        agreement = group.get("agreement", "tensor")
        if agreement.startswith("group") and len(_devices([group])) > 1:
            return f"agreement={agreement!r} over several devices"
        if group["global_clipnorm"] is not None and len(_devices(groups)) > 1:
            return f"global_clipnorm={group['global_clipnorm']} over several devices"
    return None


def _devices(groups: Sequence[Group]) -> set[torch.device]:
    return {param.device for group in groups for param in group["params"]}

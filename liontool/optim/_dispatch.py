"""Which path a parameter group takes, and which paths there are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from liontool.optim import _paths

Group = dict[str, Any]

_NO_KERNEL = "no kernel: this version of liontool computes with torch's own operations"


def backends() -> dict[str, str]:
    """The paths that a step can take here: "available", or why not.

    Example:
        >>> from liontool.optim import backends
        >>> backends()["foreach"]
        'available'
    """
    return {"loop": "available", "foreach": "available", "fused": _NO_KERNEL}


def path_name(group: Group) -> str:
    """The path that a parameter group takes: "loop" or "foreach".

    An explicit `foreach` is obeyed; else it is the fastest one that is exact. Only the loop can be
    differentiated through.
    """
    if group["differentiable"] or group["foreach"] is False:
        return "loop"
    return "foreach"


def path(group: Group) -> _paths.Path:
    """What does the arithmetic of a parameter group."""
    return _paths.loop if path_name(group) == "loop" else _paths.foreach


def scales_gradients(group: Group) -> bool:
    """Whether the step takes GradScaler's scale and flag itself, without waiting for the device."""
    return bool(group["capturable"])


def check_fused(param: Tensor, group: Group) -> None:
    """Raise RuntimeError if `fused=True` is asked for where there is no kernel."""
    if group["fused"]:
        raise RuntimeError(
            f"`fused=True` requires a kernel for {param.device.type} and {param.dtype}: "
            f"{_NO_KERNEL}; leave fused out for the fastest path that there is"
        )

"""Which path a parameter group takes, and which paths there are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from liontool.optim import _kernels, _paths

Group = dict[str, Any]


def backends() -> dict[str, str]:
    """The paths that a step can take here: "available", or why not.

    Example:
        >>> from liontool.optim import backends
        >>> backends()["foreach"]
        'available'
    """
    kernels = {kernel.name: kernel.missing() or "available" for kernel in _kernels.KERNELS}
    return {"loop": "available", "foreach": "available", **kernels}


def plain_path_name(group: Group) -> str:
    """The path that a group takes without a kernel.

    An explicit `foreach` is obeyed. Only the loop can be differentiated through.
    """
    return "loop" if group["differentiable"] or group["foreach"] is False else "foreach"


def path(group: Group) -> _paths.Path:
    """What does the arithmetic of a parameter group without a kernel."""
    return _paths.loop if plain_path_name(group) == "loop" else _paths.foreach


def in_blocks(group: Group, device: torch.device) -> bool:
    """Whether "foreach" is done in blocks: on a CPU, unless a compiler joins its operations."""
    if device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return plain_path_name(group) == "foreach"


def scales_gradients(groups: Sequence[Group]) -> bool:
    """Whether the step takes GradScaler's scale and flag itself, without waiting for the device."""
    return counts_on_device(groups) or all(group["capturable"] for group in groups)


def counts_on_device(groups: Sequence[Group]) -> bool:
    """Whether steps are counted where a flag on the device may hold them back."""
    return _kernels.for_groups(groups) is _kernels.TRITON

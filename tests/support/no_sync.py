"""A step that waits for the device would also do so on the CPU, where it can be seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

_READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.equal.default,
    torch.ops.aten.masked_select.default,
}


class NoSync(TorchDispatchMode):
    """Within it, AssertionError where a value of a tensor comes to Python."""

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Let through all that stays on the device."""
        if func in _READS:
            raise AssertionError(f"a value was read from a tensor: {func}")
        return func(*args, **(kwargs or {}))

"""A parameter that state is loaded for, among its groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liontool.optim import _sharding, _state

Group = dict[str, Any]
Entry = dict[str, Tensor]


class Member(NamedTuple):
    """A parameter and the groups that it is in.

    Attributes:
        param: The live parameter.
        live: Its group as it was before the load.
        group: Its group as it will be.
        saved: Its group as it was saved.
    """

    param: Tensor
    live: Group
    group: Group
    saved: Mapping[str, Any]

    def keeps(self, name: str) -> bool:
        """Whether the loaded options ask for this state of the parameter."""
        return name in _state.dtypes(self.param, self.group)

    def check(self, key: Any, name: str, value: Any) -> None:
        """Raise ValueError if a state is not of the parameter's shape and sharding."""
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"parameter {key}: '{name}' is a {kind}, must be a tensor")
        if value.shape != self.param.shape:
            raise ValueError(
                f"parameter {key}: '{name}' has shape {tuple(value.shape)}, the parameter "
                f"{tuple(self.param.shape)}; load with the model that the state was saved with"
            )
        if _sharding_of(value) != _sharding_of(self.param):
            raise ValueError(
                f"parameter {key}: '{name}' is not sharded as the parameter is; construct the "
                "optimizer with the options that it was saved with, call optimizer.init_state(), "
                "and load with torch.distributed.checkpoint.state_dict.set_optimizer_state_dict, "
                "with StateDictOptions(full_state_dict=True) if the state is whole"
            )

    def laid_out(self, local: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """A copy of a local piece on the device of the parameter, with its strides and sharding."""
        copy = torch.empty_like(self.param, dtype=dtype or local.dtype, requires_grad=False)
        _sharding.local(copy).copy_(local.detach())
        return copy


def _sharding_of(tensor: Tensor) -> tuple[Any, Any]:
    return getattr(tensor, "device_mesh", None), getattr(tensor, "placements", None)

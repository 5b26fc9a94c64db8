"""Parameters that an optimizer changes and that no part of the run saves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.errors import ResumeError
from liontool.resume.labels import keyword
from liontool.resume.optimizer_part import OptimizerPart
from liontool.resume.parts import Part
from liontool.resume.trees import mapped


def check_strays(things: Mapping[str, Any], parts: Mapping[str, Part]) -> None:
    """See that every parameter of every optimizer is saved by a part.

    A restart would begin with other values of it, and with the moments of the old ones.

    Args:
        things: The live objects by label.
        parts: What says their state, by the same labels.

    Raises:
        ResumeError: One is not.
    """
    held = {
        id(param)
        for thing in things.values()
        if isinstance(thing, torch.nn.Module)
        for param in thing.parameters()
    }
    strays = [one for one in _parameters(things) if id(one[-1]) not in held]
    saved = _memory(parts.values()) if strays else set()
    for label, group, position, param in strays:
        if param.numel() and _place(param) not in saved:
            raise ResumeError(
                f"{keyword(label)}: parameter {position} of group {group}, of shape "
                f"{list(param.shape)}, is in no module of the run, so it would not be saved; pass "
                "the module that has it as a keyword, or more=torch.nn.ParameterList([...])"
            )


def _parameters(things: Mapping[str, Any]) -> Iterator[tuple[str, int, int, Tensor]]:
    for label, thing in things.items():
        if isinstance(thing, torch.optim.Optimizer):
            for number, group in enumerate(thing.param_groups):
                for position, param in enumerate(group["params"]):
                    yield label, number, position, param


def _memory(parts: Iterable[Part]) -> set[Any]:
    """Where the tensors lie that are saved; a state need not be that of a module."""
    found: set[Any] = set()
    for part in parts:
        if not isinstance(part, OptimizerPart):
            mapped(part.state(), lambda tensor: found.add(_place(tensor)))
    return found


def _place(tensor: Tensor) -> Any:
    is_plain = tensor.layout == torch.strided
    return tensor.device, tensor.data_ptr() if is_plain else id(tensor)

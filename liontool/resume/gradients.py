"""Which parameters have a gradient between two steps. Its values are not kept.

An optimizer passes over a parameter without a gradient, and goes on with one whose gradient is 0:
decay and moments act on it. What `zero_grad(set_to_none=False)` left there must be there again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.errors import FormatError
from liontool.resume.labels import MAIN, keyword
from liontool.resume.names import bare

GRADIENTS = "gradients"

_LAYOUTS = {"dense": torch.strided, "sparse": torch.sparse_coo}


def gradients(things: Mapping[str, Any]) -> dict[str, list[str]]:
    """Names of the parameters that have a gradient, by how it is laid out; for a checkpoint."""
    found: dict[str, list[str]] = {}
    for name, param in _named(things):
        for kind, layout in _LAYOUTS.items():
            if param.grad is not None and param.grad.layout == layout:
                found.setdefault(kind, []).append(name)
    return found


def give_gradients(things: Mapping[str, Any], saved: Mapping[str, Any]) -> None:
    """Give gradients of 0 to the parameters that had one; names that are gone are passed over."""
    wanted = {name: kind for kind in _LAYOUTS for name in saved.get(kind, [])}
    for name, param in _named(things):
        if name in wanted and param.grad is None:
            layout = _LAYOUTS[wanted[name]]
            param.grad = torch.zeros_like(param, layout=layout, requires_grad=False)


def checked_gradients(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a saved state says of gradients.

    Raises:
        FormatError: It is not what liontool writes.
    """
    saved = state.get(GRADIENTS, {})
    if not isinstance(saved, dict) or not all(
        kind in _LAYOUTS and isinstance(names, list) and all(isinstance(one, str) for one in names)
        for kind, names in saved.items()
    ):
        raise FormatError(f"{GRADIENTS}: does not say which parameters have one")
    return saved


def _named(things: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """The parameters of modules by name, then those that only an optimizer has by place."""
    seen: set[int] = set()
    for label, thing in things.items():
        if isinstance(thing, torch.nn.Module):
            prefix = "" if label in MAIN else f"{keyword(label)}."
            for name, param in thing.named_parameters():
                if id(param) not in seen:
                    seen.add(id(param))
                    yield bare(prefix + name), param
    for label, thing in things.items():
        if isinstance(thing, torch.optim.Optimizer):
            for number, group in enumerate(thing.param_groups):
                for place, param in enumerate(group["params"]):
                    if id(param) not in seen:
                        yield f"{keyword(label)}.{number}.{place}", param

"""Names of the parameters by their place in the optimizer, since state goes by place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.resume.labels import MAIN, keyword


def param_names(things: Mapping[str, Any]) -> dict[str, list[list[str | None]]]:
    """For each optimizer the names in each group; None for a parameter that no module has.

    Args:
        things: The parts of a run by label; the names in extra modules begin with their keyword.
    """
    known = _known(things)
    return {
        label: [
            [known.get(param, own) for param, own in zip(group["params"], _own(group), strict=True)]
            for group in thing.param_groups
        ]
        for label, thing in things.items()
        if isinstance(thing, torch.optim.Optimizer)
    }


def _known(things: Mapping[str, Any]) -> dict[Tensor, str]:
    """The first name of each parameter."""
    found: dict[Tensor, str] = {}
    for label, thing in things.items():
        if isinstance(thing, torch.nn.Module):
            prefix = f"{keyword(label)}." if label not in MAIN else ""
            for name, param in thing.named_parameters():
                found.setdefault(param, prefix + name)
    return found


def _own(group: Mapping[str, Any]) -> list[str | None]:
    names = group.get("param_names")
    return list(names) if names is not None else [None] * len(group["params"])

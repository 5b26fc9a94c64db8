"""A scheduler that the checkpoint does not know begins with the rates that it was built for.

What the old one drove in the groups goes with it: rates, and the momenta of a cycle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liontool.checkpoint.learning_rates import GROUP_KEYS

_CYCLE = ("base_momentum", "max_momentum")
_CYCLED = ("betas", "momentum")


def with_live_rates(saved: Mapping[str, Any], live: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A saved optimizer state with what schedulers drive taken from the live groups.

    Args:
        saved: The state dict.
        live: The groups, after the new scheduler was built.
    """
    groups = [_with_live(old, new) for old, new in zip(saved["param_groups"], live, strict=True)]
    return {**saved, "param_groups": groups}


def _with_live(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    driven = {*GROUP_KEYS, *_CYCLE}
    if any(name in group for name in _CYCLE for group in (old, new)):
        driven |= set(_CYCLED)
    kept = {name: value for name, value in old.items() if name not in driven}
    return {**kept, **{name: value for name, value in new.items() if name in driven}}

"""The state of single parameters on its way into an optimizer: judged, cast where asked, placed."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import _foreign, _sharding, _state
from liontool.optim._foreign import Dropped
from liontool.optim._member import Entry, Member
from liontool.states import MOMENT

_ASKED_BY = {
    "residual": "rounding",
    "ema": "use_ema",
    "accumulator": "gradient_accumulation_steps",
}
"""The option that asks for each further state."""


def adopted(
    optimizer: Optimizer, saved: Mapping[Any, Any], members: Mapping[Any, Member], dropped: Dropped
) -> dict[Tensor, Entry]:
    """The state of each parameter as ours: own memory, the parameter's device and layout.

    Args:
        optimizer: As it was before the load; its empty state entries are removed.
        saved: The `state` of a state dict.
        members: The parameters by their names there; their loaded groups get a `state_dtype` where
            the momentum is wider than the weights.
        dropped: Gets the names of what is left out.

    Raises:
        ValueError: It is Adam's state or no Lion's, or does not fit the parameter.
    """
    held = {key: entry for key, entry in saved.items() if key in members}
    _refuse_unread(optimizer, held, members)
    entries = {key: _read(key, entry, members[key], dropped) for key, entry in held.items()}
    entries = {key: entry for key, entry in entries.items() if entry}
    _refuse_nameless(held, entries)
    for key, entry in entries.items():
        _keep_width(entry[MOMENT], members[key])
    state = {}
    for key, entry in entries.items():
        member = members[key]
        dtypes = _state.dtypes(member.param, member.group)
        state[member.param] = {
            name: member.laid_out(_sharding.local(value), dtypes[name])
            for name, value in entry.items()
        }
    _restart_accumulation(members.values(), state)
    return state


def _refuse_unread(
    optimizer: Optimizer, saved: Mapping[Any, Any], members: Mapping[Any, Member]
) -> None:
    """Raise where torch.distributed.checkpoint has not read what a flattened state dict holds.

    Of that it reads the names alone that the live state has, and it asks a defaultdict for them.
    """
    empty = [param for param, entry in optimizer.state.items() if not entry]
    for param in empty:
        del optimizer.state[param]  # so that it makes the state when it loads again
    unread = set(empty)
    for key, entry in saved.items():
        if isinstance(key, str) and not entry and members[key].param in unread:
            raise ValueError(
                f"parameter {key}: the optimizer had no state for it yet, so its momentum was not "
                "read from the flattened state dict; call optimizer.init_state() before loading, "
                "or load before the first backward pass"
            )


def _refuse_nameless(saved: Mapping[Any, Any], entries: Mapping[Any, Entry]) -> None:
    """Raise where no entry of a flattened state dict had a momentum by our name."""
    lacking = [key for key, entry in saved.items() if entry and key not in entries]
    if lacking and not entries:
        raise ValueError(
            f"parameter {lacking[0]}: the flattened state dict has no '{MOMENT}', neither for it "
            "nor for any other parameter; load it without flatten_optimizer_state_dict"
        )


def _read(key: Any, saved: Any, member: Member, dropped: Dropped) -> Entry:
    """An entry by our names, without what the loaded options do not ask for."""
    if not isinstance(saved, Mapping):
        kind = type(saved).__name__
        raise ValueError(f"parameter {key}: its state is a {kind}, must be a dict of tensors")
    # For what it has not found in a flattened state dict, DCP has {}.
    found = {name: value for name, value in saved.items() if not _is_empty(value)}
    if not found:
        return {}
    entry = _foreign.entry(key, found, member, dropped)
    for name, value in entry.items():
        member.check(key, name, value)
        _check_dtype(key, name, value, member.param)
        if not member.keeps(name):
            dropped.add(name, "the loaded options do without it")
    if isinstance(key, str):
        _refuse_lost(key, entry, member)
    return {name: value for name, value in entry.items() if member.keeps(name)}


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and not value


def _refuse_lost(key: str, entry: Entry, member: Member) -> None:
    """Raise where a flattened state dict holds what the live optimizer had no name for."""
    known = entry.keys() | _state.dtypes(member.param, member.live).keys()
    for name, option in _ASKED_BY.items():
        if name not in known and member.keeps(name):
            raise ValueError(
                f"parameter {key}: '{name}' was not read from the flattened state dict; construct "
                f"the optimizer with {option}={member.group[option]!r}, as it was saved, before "
                "loading"
            )


def _check_dtype(key: Any, name: str, value: Tensor, param: Tensor) -> None:
    if name == "residual":
        fits, must = value.dtype in (torch.int16, torch.int32), "torch.int16"
    elif param.is_complex():
        fits, must = value.is_complex(), "complex, as the parameter is"
    else:
        fits, must = value.is_floating_point(), "a floating-point type"
    if not fits:
        raise ValueError(f"parameter {key}: '{name}' has dtype {value.dtype}, must be {must}")


def _keep_width(exp_avg: Tensor, member: Member) -> None:
    """Let the group say that its momentum is float32 where that is more than the weights are."""
    asked, dtype = member.group["state_dtype"], member.param.dtype
    is_half = dtype in (torch.bfloat16, torch.float16)
    if asked is None and is_half and torch.promote_types(exp_avg.dtype, dtype) != dtype:
        member.group["state_dtype"] = "float32"


def _restart_accumulation(members: Collection[Member], state: Mapping[Tensor, Entry]) -> None:
    """A sum of gradients that was not loaded begins anew."""
    groups = {id(member.group): member.group for member in members}
    for member in members:
        if "accumulator" in state.get(member.param, {}):
            groups.pop(id(member.group), None)
    for group in groups.values():
        group["micro_step"].zero_()

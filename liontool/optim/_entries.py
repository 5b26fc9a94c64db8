"""The state of single parameters on its way into an optimizer: judged, cast where asked, placed."""

from __future__ import annotations

from collections.abc import Mapping
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
    for key in entries:
        live = optimizer.state.get(members[key].param, {})
        if isinstance(key, str) and held[key].keys() == live.keys():
            _refuse_lost(key, held[key], members[key])
    for key, entry in entries.items():
        _keep_width(key, entry[MOMENT], members[key])
    state = {}
    for key, entry in entries.items():
        member = members[key]
        dtypes = _state.dtypes(member.param, member.group)
        state[member.param] = {
            name: member.laid_out(_sharding.local(value), dtypes[name])
            for name, value in entry.items()
        }
    return state


def _refuse_unread(
    optimizer: Optimizer, saved: Mapping[Any, Any], members: Mapping[Any, Member]
) -> None:
    """Raise where torch.distributed.checkpoint has not read what was saved.

    It asks for the state that the optimizer has, and makes it only where no gradients exist. For a
    flattened state dict it asks a defaultdict.
    """
    empty = {param for param, entry in optimizer.state.items() if not entry}
    for param in empty:
        del optimizer.state[param]  # so that it makes the state when it loads again
    for key, member in members.items():
        has_state = not _is_empty(saved.get(key, {})) or member.param in optimizer.state
        if isinstance(key, str) and not has_state and (member.param in empty or _moves(member)):
            raise ValueError(
                f"parameter {key}: the optimizer had no state for it yet, so its momentum was not "
                "read; call optimizer.init_state() before the state dict is made that "
                "torch.distributed.checkpoint reads into, or load before the first backward pass"
            )


def _moves(member: Member) -> bool:
    """Whether a gradient waits for a momentum that others of the group have."""
    return member.param.grad is not None and bool(member.group["step"] > 0)


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
    return {name: value for name, value in entry.items() if member.keeps(name)}


def _is_empty(value: Any) -> bool:
    return isinstance(value, Mapping) and not value


def _refuse_lost(key: str, read: Mapping[str, Any], member: Member) -> None:
    """Raise where torch.distributed.checkpoint asked for what the live optimizer had, and no more.

    So it does for a flattened state dict, and for any that it reads from files.
    """
    known = read.keys() | _state.dtypes(member.param, member.live).keys()
    for name, option in _ASKED_BY.items():
        if name not in known and member.keeps(name):
            raise ValueError(
                f"parameter {key}: '{name}' was not read, since torch.distributed.checkpoint asks "
                "for the state that the optimizer has; construct the optimizer with "
                f"{option}={member.group[option]!r}, as it was saved, before loading"
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
    local = _sharding.local(value)
    if name == "residual" and not torch.equal(local.to(torch.int16).to(local.dtype), local):
        raise ValueError(
            f"parameter {key}: 'residual' has values beyond 16 bits, so the file is damaged; "
            "load it without 'residual' to begin with residuals of 0"
        )


def _keep_width(key: Any, exp_avg: Tensor, member: Member) -> None:
    """Let the group say that its momentum is float32 where that is more than the weights are.

    Raises:
        ValueError: It would be less than other weights of the group are.
    """
    asked, dtype = member.group["state_dtype"], member.param.dtype
    is_half = dtype in (torch.bfloat16, torch.float16)
    if asked is not None or not is_half or torch.promote_types(exp_avg.dtype, dtype) == dtype:
        return
    wider = [param.dtype for param in member.live["params"] if param.dtype.to_real().itemsize > 4]
    if wider:
        raise ValueError(
            f"parameter {key}: '{MOMENT}' is {exp_avg.dtype}, more than its {dtype} weights are, "
            f"and state_dtype='float32' would narrow that of the {wider[0]} weights of its group; "
            "construct the optimizer with a state_dtype, or give the loaded group one"
        )
    member.group["state_dtype"] = "float32"

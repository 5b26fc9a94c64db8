"""What other Lions keep, said in our words. Which keys they have is data: `liontool.states`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.optim import _dequantise, _sharding
from liontool.optim._member import Entry, Group, Member
from liontool.states import (
    ADAM_MOMENTS,
    CORRECTIONS,
    DIALECTS,
    IDLE_STATE,
    LION_STATE,
    MOMENT,
    NESTED_STATE,
    Dialect,
    is_lion_of_bitsandbytes,
)


class Dropped:
    """What a load leaves out, for its one warning."""

    def __init__(self) -> None:
        self._names: set[str] = set()

    def add(self, name: str, reason: str = "") -> None:
        """Note a key of a group or of a state."""
        self._names.add(f"{name} ({reason})" if reason else name)

    def __bool__(self) -> bool:
        return bool(self._names)

    def __str__(self) -> str:
        return f"does not know and drops: {', '.join(sorted(self._names))}"


def group(saved: Mapping[str, Any], live: Mapping[str, Any], dropped: Dropped) -> Group:
    """A saved group in our words, without the keys of others. The user's own stay."""
    ours = dict(saved)
    for dialect in DIALECTS:
        if dialect.marks <= saved.keys() and not dialect.marks <= live.keys():
            _translate(ours, dialect)
            _drop(ours, dialect, dropped)
    return ours


def _translate(ours: Group, dialect: Dialect) -> None:
    if dialect.betas:
        ours["betas"] = tuple(ours.pop(name) for name in dialect.betas)
    if dialect.cautious in ours:
        ours["cautious_factor"] = 0.0 if ours.pop(dialect.cautious) else 1.0
    if dialect.decoupled in ours:
        ours["decoupled_weight_decay"] = bool(ours.pop(dialect.decoupled))
    if dialect.reference in ours:
        if ours[dialect.reference] is None:
            del ours[dialect.reference]
        else:  # the key itself is a scheduler's too, and stays
            ours["reference_lr"] = float(ours[dialect.reference])


def _drop(ours: Group, dialect: Dialect, dropped: Dropped) -> None:
    for name in dialect.idle & ours.keys():
        del ours[name]
        dropped.add(name)
    for name in dialect.rules.keys() & ours.keys():
        value = ours.pop(name)
        if value == dialect.rules[name]:
            dropped.add(name)
        else:
            dropped.add(f"{name}={value!r}", "the steps differ without it")


def entry(key: Any, saved: Mapping[str, Any], member: Member, dropped: Dropped) -> Entry:
    """The state of one parameter by our names.

    Args:
        key: What to call the parameter.
        saved: Its state as it was saved, not empty.
        member: The parameter and its groups.
        dropped: Gets the names of the state that has no meaning here.

    Raises:
        ValueError: It is Adam's state, or there is no momentum of a Lion in it.
    """
    left = {name: value for name, value in saved.items() if name != NESTED_STATE}
    left.update(saved.get(NESTED_STATE, {}))
    _drop_second_moment(key, left, member.saved, dropped)
    ours = {name: left.pop(name) for name in LION_STATE if name in left}
    if not isinstance(ours.get(MOMENT), Tensor):
        ours[MOMENT] = _momentum(key, left, member)
    for name in CORRECTIONS & left.keys():
        correction = left.pop(name)
        if not isinstance(correction, Tensor) or correction.shape != member.param.shape:
            continue  # optimi keeps None or one element where there is none
        if member.keeps("residual") and correction.dtype != torch.float16:
            member.check(key, name, correction)
            ours["residual"] = _residual(name, correction, member)
        else:
            dropped.add(name, "only bfloat16 weights with rounding='split' can keep it")
    for name in left.keys() - IDLE_STATE:
        dropped.add(name)
    return ours


def _drop_second_moment(
    key: Any, left: dict[str, Any], group: Mapping[str, Any], dropped: Dropped
) -> None:
    """Raise if the state is Adam's. DeepSpeed's CPULion, alone, has zeros in that place."""
    for name in ADAM_MOMENTS & left.keys():
        if name != "exp_avg_sq" or "eps" in group or torch.any(left[name]):
            raise ValueError(
                f"parameter {key}: optimizer state holds '{name}', which is Adam's; convert the "
                "checkpoint first: liontool convert CHECKPOINT --lr-ratio R"
            )
        del left[name]
        dropped.add(name, "nothing but zeros")


def _momentum(key: Any, left: dict[str, Any], member: Member) -> Tensor:
    """The momentum under another name or in another code, taken out of `left`."""
    found = ", ".join(map(repr, left))
    if "state1" in left and is_lion_of_bitsandbytes(member.saved):
        state: Tensor = left.pop("state1")
        if state.is_floating_point():
            return state
        if {"qmap1", "absmax1"} <= left.keys():
            return _dequantise.blockwise(state, left.pop("qmap1"), left.pop("absmax1"))
    if "exp_avg::quantized" in left and "master_bytewidth" in member.saved:
        codes, scales = left.pop("exp_avg::quantized"), left.pop("exp_avg::scales")
        values = _dequantise.softsign(_sharding.local(codes), _sharding.local(scales))
        return member.laid_out(values) if codes is not _sharding.local(codes) else values
    raise ValueError(
        f"parameter {key}: optimizer state has no tensor '{MOMENT}', found {found}; "
        "only a Lion's state can be loaded"
    )


def _residual(name: str, correction: Tensor, member: Member) -> Tensor:
    """What the weights lack, from what another Lion keeps to make up for it."""
    weight = _sharding.local(member.param.detach())
    correction = _sharding.local(correction).to(weight.device)
    if name == "kahan_comp":
        wide = weight.float() + correction.float()
    elif member.saved.get("master_bytewidth") == 4:
        # int16 under the name of bfloat16, so that torch's loader leaves it alone.
        wide = _dequantise.corrected(weight, correction.view(torch.int16), 32767)
    else:
        wide = _dequantise.corrected(weight, correction, 127)
    return member.laid_out(_dequantise.residual(weight, wide))

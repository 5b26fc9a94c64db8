"""Whether groups and schedulers are what a conversion makes of the source's."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import GROUP_KEYS, rate_keys, walk
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.checkpoint.plain_values import json_value, plain
from liontool.inspect.places import short
from liontool.inspect.record import Record
from liontool.states import ADAM_GROUP_KEYS

_SINGLE = 1e-6
_LION = "adamw to lion"


@dataclass(frozen=True)
class Fault:
    """A field that is not as it must be."""

    where: str
    text: str


@dataclass(frozen=True)
class _Claim:
    """What a field must be."""

    where: str
    found: Any
    wanted: Any


def field_faults(
    after: Optimizer, before: Optimizer, ratio: float, record: Record
) -> tuple[list[Fault], int]:
    """Fields that are not what the rule makes of the source's, and how many are.

    Args:
        after: The Lion.
        before: The AdamW that it was made of.
        ratio: What learning rates were divided by.
        record: What else the conversion did.
    """
    if [g.params for g in after.groups] != [g.params for g in before.groups]:
        return [Fault("groups", "have other parameters, or another order, than the source's")], 0
    claims = [*_groups(after, before, ratio, record)]
    schedulers = walk(after.schedulers), walk(before.schedulers)
    if len(schedulers[0]) != len(schedulers[1]):
        return [Fault("schedulers", "are not as many as in the source")], 0
    if record.rule == _LION:
        for new, old in zip(*schedulers, strict=True):
            claims += _scheduler(new, old, ratio)
    faults = [
        Fault(claim.where, f"is {_shown(claim.found)}, must be {_shown(claim.wanted)}")
        for claim in claims
        if not _agree(claim.found, claim.wanted)
    ]
    return faults, len(claims) - len(faults)


def _groups(after: Optimizer, before: Optimizer, ratio: float, record: Record) -> Iterator[_Claim]:
    for index, (new, old) in enumerate(zip(after.groups, before.groups, strict=True)):
        found, source = new.fields, {key: plain(value) for key, value in old.fields.items()}
        for key, value in source.items():
            wanted = _wanted(key, value, source, ratio, record)
            if wanted is not _ANYTHING:
                yield _Claim(f"group {index}: {key}", plain(found.get(key)), wanted)
        yield _Claim(f"group {index}: betas", plain(found.get("betas")), list(record.betas))


_ANYTHING = object()


def _wanted(key: str, value: Any, source: Mapping[str, Any], ratio: float, record: Record) -> Any:
    """What a group's field must be; `_ANYTHING` where it is new, gone, or of no consequence."""
    if key in GROUP_KEYS:
        held = key != "lr" and record.rule != _LION
        return _divided(source.get("lr") if held else value, ratio)
    if key == "weight_decay":
        if record.decay == "decoupled":
            return _ANYTHING
        return _divided(value, 1 / ratio if record.decay == "scaled" else 1.0)
    if key in ADAM_GROUP_KEYS or key in ("betas", "beta1", "beta2", "param_names", "horizon"):
        return _ANYTHING
    return _ANYTHING if key in _OF_LIONS else value


# Keys that a Lion's group may have been given a value of its own for.
_OF_LIONS = frozenset(
    {
        "decouple_lr", "kahan_sum", "triton", "gradient_release", "setup", "weight_decouple",
        "fixed_decay", "decoupled_weight_decay", "reference_lr",
    }
)  # fmt: skip


def _scheduler(new: Scheduler, old: Scheduler, ratio: float) -> Iterator[_Claim]:
    """Learning rates are divided, everything else is as it was."""
    rates = rate_keys(old)
    label = old.label or "scheduler"
    for key in old.fields:
        value = plain(old.fields[key])
        wanted = _divided(value, ratio) if key in rates else value
        yield _Claim(f"{label}: {key}", plain(new.fields.get(key)), wanted)


def _divided(value: Any, ratio: float) -> Any:
    """Every number in a value divided."""
    if isinstance(value, (list, tuple)):
        return [_divided(item, ratio) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value / ratio if ratio != 1 and abs(value) < 1e300 else value
    return value


def _agree(found: Value, wanted: Value) -> bool:
    """Whether two values are the same, numbers up to their rounding, in the types of JSON."""
    if isinstance(wanted, (list, tuple)) and isinstance(found, (list, tuple)):
        same = len(found) == len(wanted)
        return same and all(_agree(a, b) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, float) and isinstance(found, (int, float)):
        single = abs(wanted) < 1e30 and math.isclose(found, wanted, rel_tol=_SINGLE)
        return found == wanted or single or (math.isnan(wanted) and math.isnan(found))
    return bool(json_value(found) == json_value(wanted))


def _shown(value: Any) -> str:
    return short(f"{value:.9g}" if isinstance(value, float) else str(value))

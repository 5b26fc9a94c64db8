"""The numbers and tensors that a rule is about to work on: checked once, before any rule does."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite

from liontool.checkpoint.document import TensorRef, Value, is_list
from liontool.checkpoint.learning_rates import GROUP_KEYS, number, rate_keys, walk
from liontool.checkpoint.model import Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.plain_values import plain
from liontool.checkpoint.values import is_float
from liontool.errors import LayoutError
from liontool.states import MOMENT

_SHOWN = 60


def check_values(optimizer: Optimizer) -> None:
    """Make sure that learning rates, betas, decay, step counts and moments are what they claim.

    Raises:
        LayoutError: One is not; the message says where it is.
    """
    where = f"{optimizer.label}: " if optimizer.label else ""
    for i, group in enumerate(optimizer.groups):
        _check_group(group, f"{where}group {i}")
    for slot in optimizer.slots.values():
        _check_slot(slot, f"{where}{slot.label}")
    _check_owners(optimizer, where)
    check_schedulers(optimizer.schedulers)


def check_schedulers(schedulers: Sequence[Scheduler]) -> None:
    """Make sure that all learning rates of schedulers are numbers.

    Raises:
        LayoutError: One is not.
    """
    for scheduler in walk(schedulers):
        for name in rate_keys(scheduler):
            value = scheduler.fields[name]
            items = value if is_list(value) else (value,)
            if any(item is not None and number(item) is None for item in items):
                raise _wrong(f"scheduler {scheduler.label}", name, "numbers", value)


def _check_owners(optimizer: Optimizer, where: str) -> None:
    """State of no group's parameter is state that every loader loses without a word."""
    owned = {key for group in optimizer.groups for key in group.params}
    orphan = next((key for key in optimizer.slots if key not in owned), None)
    if orphan is not None:
        raise LayoutError(
            f"{where}state of {orphan!r} belongs to no group's params, so that a loader would lose "
            "it; were keys turned from numbers into text on the way? Save optimizer.state_dict() "
            "itself with torch.save"
        )


def _check_group(group: ParamGroup, where: str) -> None:
    fields = group.fields
    for name in GROUP_KEYS:
        rate = fields.get(name)
        if rate is not None and number(rate) is None:
            raise _wrong(where, name, "a number", rate)
    for name in ("lr", "weight_decay"):
        value = number(fields.get(name))
        if name in fields and not (value is not None and isfinite(value)):
            raise _wrong(where, name, "a finite number", fields[name])
    if "betas" in fields and not _are_betas(fields["betas"]):
        raise _wrong(where, "betas", "numbers in [0, 1)", fields["betas"])


def _check_slot(slot: Slot, where: str) -> None:
    moment = slot.state.get(MOMENT)
    if MOMENT in slot.state and not _is_moment(moment):
        raise LayoutError(
            f"{where}: {MOMENT} is {_shown(moment)}, and only plain tensors of floats can be "
            "converted; if it is quantised or sparse, save it dense and as float32"
        )
    step = number(slot.state.get("step"))
    if "step" in slot.state and not (step is not None and isfinite(step) and step >= 0):
        raise _wrong(where, "step", "a count", slot.state["step"])


def _is_moment(value: Value) -> bool:
    if not isinstance(value, TensorRef):
        return False
    return is_float(value.dtype) or value.dtype.startswith("complex")


def _are_betas(value: Value) -> bool:
    if not is_list(value) or len(value) < 2:
        return False
    betas = [number(beta) for beta in value]
    return all(beta is not None and 0 <= beta < 1 for beta in betas)


def _wrong(where: str, name: str, wanted: str, found: Value) -> LayoutError:
    return LayoutError(f"{where}: {name} must be {wanted}, found {_shown(found)}")


def _shown(value: Value) -> str:
    return f"{plain(value)!r:.{_SHOWN}}"

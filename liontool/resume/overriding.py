"""`overrides=`: hyperparameters of a checkpoint changed on purpose, as `liontool edit` does it.

A learning rate is a curve: groups and schedulers keep it in many numbers, and all move by one
factor. Anything else is a value in every group; a weight decay of 0 stays 0 where others have one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint import values
from liontool.checkpoint.document import Place, TensorRef
from liontool.checkpoint.frameworks import torch_layout
from liontool.checkpoint.learning_rates import notes, walk
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.edit import hyperparameters
from liontool.edit.curves import LR, base
from liontool.edit.words import Scale, Set
from liontool.errors import EditError, ResumeError
from liontool.resume.overrides import Overrides
from liontool.resume.trees import mapped

_HIDDEN = ("params", "param_names", "initial_lr", "initial_weight_decay")


def overridden(
    optimizer: Mapping[str, Any],
    schedulers: Mapping[str, Mapping[str, Any]],
    overrides: Overrides,
    say: Callable[[str], None],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The state of an optimizer and its schedulers, changed; what was given stays as it is.

    Args:
        optimizer: Its state dict.
        schedulers: State dicts of those that drive it, by label.
        overrides: What the program gives; what an earlier start has done stays as it is.
        say: Takes a line for each thing to know.

    Raises:
        ResumeError: No group has the name, or it cannot have the value.
    """
    place = Place("")
    view = torch_layout.optimizer({**_viewed(optimizer), "state": {}}, place / "optimizer")
    drivers = {
        label: torch_layout.scheduler(_viewed(state), place / label)
        for label, state in schedulers.items()
        if torch_layout.is_scheduler(_viewed(state))
    }
    view = Optimizer(view.label, view.groups, view.slots, tuple(drivers.values()))
    for name, value in overrides.new.items():
        view = _changed(view, name, value, overrides.number_before(name), say)
    if "lr" in overrides.new:
        for line in notes(view.schedulers, "change"):
            say(line)
    groups = [
        {**old, **{name: _back(old[name], item) for name, item in new.fields.items()}}
        for old, new in zip(optimizer["param_groups"], view.groups, strict=True)
    ]
    changed = dict(zip(drivers, view.schedulers, strict=True))
    states = {
        label: _scheduler_back(state, changed[label]) if label in changed else state
        for label, state in schedulers.items()
    }
    return {**optimizer, "param_groups": groups}, states


def _changed(
    view: Optimizer, name: str, value: Any, before: float | None, say: Callable[[str], None]
) -> Optimizer:
    there = list(dict.fromkeys(str(key) for group in view.groups for key in group.fields))
    if name not in there:
        shown = ", ".join(key for key in there if key not in _HIDDEN)
        raise ResumeError(f"overrides: no group of the optimizer has '{name}'; there is {shown}")
    try:
        after, notices = hyperparameters.changed(view, _word(view, name, value, before))
    except EditError as error:
        raise ResumeError(f"overrides: {error}") from error
    for notice in notices:
        say(f"overrides: {notice.text}")
    return after


def _word(view: Optimizer, name: str, value: Any, before: float | None) -> Set | Scale:
    """Groups with learning rates of their own keep their ratios: the highest becomes the value.

    Where nothing but the present rate is kept, it has come from the value of `before`: a plateau
    or the program lowers it for good.
    """
    if isinstance(value, list):
        value = tuple(value)
    text = f"{name}={value}"
    if name == "lr" and isinstance(value, (int, float)) and not isinstance(value, bool):
        if before and not any(_keeps_base(view, index) for index in range(len(view.groups))):
            return Scale(text, name, value / before)
        bases = {base(view, index, LR) for index in range(len(view.groups))}
        if len(bases) > 1:
            return Scale(text, name, value / max(bases))
    return Set(text, name, value)


def _keeps_base(view: Optimizer, index: int) -> bool:
    """Whether the base of a learning rate can be told from what it is at this step."""
    is_kept = any(key in view.groups[index].fields for key in LR.base_keys)
    tops = (name for one in walk(view.schedulers) for name in LR.tops if name in one.fields)
    return is_kept or any(tops)


def _viewed(state: Any) -> Any:
    """A state dict as a rule for files sees it: numbers in tensors can be changed."""
    return mapped(state, _ref)


def _ref(tensor: Tensor) -> Any:
    if tensor.numel() != 1 or not tensor.is_floating_point():
        return tensor
    dtype = str(tensor.dtype).removeprefix("torch.")
    return values.from_scalars(dtype, [tensor.item()], tuple(tensor.shape))


def _back(old: Any, new: Any) -> Any:
    if isinstance(new, TensorRef):
        return torch.full_like(old, values.scalar(new))
    if isinstance(new, (list, tuple)) and isinstance(old, (list, tuple)) and len(old) == len(new):
        return type(old)(_back(one, other) for one, other in zip(old, new, strict=True))
    return old if isinstance(old, dict) else new


def _scheduler_back(state: Mapping[str, Any], view: Scheduler) -> dict[str, Any]:
    made = {
        name: _back(item, view.fields[name]) if name in view.fields else item
        for name, item in state.items()
    }
    if view.children:
        held: Sequence[Any] = state["_schedulers"]
        made["_schedulers"] = [
            _scheduler_back(child, changed)
            for child, changed in zip(held, view.children, strict=True)
        ]
    return made

"""Live torch optimizers and schedulers as model objects, and back, without a file between."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from liontool.checkpoint.document import Computed, TensorRef
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.values import read


def ref(tensor: torch.Tensor, label: str = "") -> TensorRef:
    """A tensor that is in memory, as if it were in a file."""
    data = tensor.detach().contiguous().clone()
    raw = bytes(data.reshape(-1).view(torch.uint8).numpy()) if data.numel() else b""
    dtype = str(data.dtype).removeprefix("torch.")
    return TensorRef(dtype, tuple(data.shape), Computed(lambda: iter([raw])), label)


def tensor(found: TensorRef) -> torch.Tensor:
    """The elements of a TensorRef."""
    dtype = getattr(torch, found.dtype)
    if not found.numel:
        return torch.empty(found.shape, dtype=dtype)
    return torch.frombuffer(bytearray(read(found)), dtype=dtype).reshape(found.shape)


def plain(value: Any) -> Any:
    """Tensors in a state dict become TensorRefs; everything else is copied."""
    if isinstance(value, torch.Tensor):
        return ref(value)
    if isinstance(value, dict) and type(value) is dict:
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(plain(item) for item in value)
    return copy.deepcopy(value)


def live(value: Any) -> Any:
    """The other way."""
    if isinstance(value, TensorRef):
        return tensor(value)
    if isinstance(value, Mapping) and not hasattr(value, "elements"):
        return {key: live(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(live(item) for item in value)
    return copy.deepcopy(value)


def scheduler_of(state: dict[str, Any], label: str = "") -> Scheduler:
    """What a framework makes of a scheduler's state dict."""
    children = tuple(
        scheduler_of(child, f"{label}.{i}") for i, child in enumerate(state.get("_schedulers", ()))
    )
    own = {key: plain(value) for key, value in state.items() if key != "_schedulers"}
    return Scheduler(Fields(own), children, label)


def scheduler_state(scheduler: Scheduler) -> dict[str, Any]:
    """The state dict that a framework would write."""
    state: dict[str, Any] = {key: live(value) for key, value in scheduler.fields.items()}
    if scheduler.children:
        state["_schedulers"] = [scheduler_state(child) for child in scheduler.children]
    return state


def optimizer_of(state: dict[str, Any], *schedulers: dict[str, Any]) -> Optimizer:
    """What a framework makes of an optimizer's state dict."""
    groups = tuple(
        ParamGroup(
            Fields({key: plain(value) for key, value in group.items() if key != "params"}),
            tuple(group["params"]),
            tuple(group.get("param_names", ())),
        )
        for group in state["param_groups"]
    )
    slots = {
        key: Slot(key, Fields({name: plain(value) for name, value in entry.items()}))
        for key, entry in state["state"].items()
    }
    return Optimizer("", groups, slots, tuple(scheduler_of(item) for item in schedulers))


def optimizer_state(optimizer: Optimizer) -> dict[str, Any]:
    """The state dict that a framework would write."""
    return {
        "state": {
            key: {name: live(value) for name, value in slot.state.items()}
            for key, slot in optimizer.slots.items()
        },
        "param_groups": [
            {**{key: live(value) for key, value in group.fields.items()}, "params": [*group.params]}
            for group in optimizer.groups
        ],
    }

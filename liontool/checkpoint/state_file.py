"""liontool's own layout of optimizer state: one safetensors file, documented in docs/state-file.md.

Tensors are named as torch.distributed.checkpoint flattens them, `state.<parameter>.<name>`; where a
parameter's name is not known, its position stands in its place. All else is JSON in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.model import Optimizer, ParamGroup, Scheduler
from liontool.checkpoint.plain_values import plain
from liontool.checkpoint.values import from_scalars

SCHEMA = "1"
"""Version of the layout, in the metadata under `liontool.schema`."""


def tensors(optimizer: Optimizer) -> dict[str, TensorRef]:
    """Every state tensor by its name in the file; a plain number becomes a 0-d float32."""
    return {
        f"state.{slot.label}.{name}": (
            value if isinstance(value, TensorRef) else from_scalars("float32", [value])
        )
        for slot in optimizer.slots.values()
        for name, value in slot.state.items()
    }


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """The same as torch's `state_dict()` gives it: tensors stay tensors, also in groups."""
    return {
        "state": {key: dict(slot.state) for key, slot in optimizer.slots.items()},
        "param_groups": [
            {**plain(group.fields, tensors=True), "params": list(group.params)}
            for group in optimizer.groups
        ],
    }


def metadata(
    optimizer: Optimizer, class_name: str, provenance: Mapping[str, Any]
) -> dict[str, str]:
    """All that is not a tensor, as safetensors keeps it: strings.

    Args:
        optimizer: What is to be saved.
        class_name: Class and version of what will load it: "liontool.optim.Lion 0.1.0".
        provenance: Where the state came from.
    """
    return {
        "format": "pt",
        "liontool.schema": SCHEMA,
        "liontool.optimizer": class_name,
        "liontool.param_groups": json.dumps([_group(optimizer, g) for g in optimizer.groups]),
        "liontool.lr_scheduler": json.dumps([scheduler_state(s) for s in optimizer.schedulers]),
        "liontool.provenance": json.dumps(provenance),
    }


def scheduler_state(scheduler: Scheduler) -> dict[str, Any]:
    """A scheduler as plain values, nested ones under `_schedulers` as torch keeps them."""
    state = plain(scheduler.fields)
    if scheduler.children:
        state["_schedulers"] = [scheduler_state(child) for child in scheduler.children]
    return dict(state)


def _group(optimizer: Optimizer, group: ParamGroup) -> dict[str, Any]:
    labels = group.names or tuple(
        optimizer.slots[key].label if key in optimizer.slots else str(key) for key in group.params
    )
    return {**plain(group.fields), "params": list(labels)}

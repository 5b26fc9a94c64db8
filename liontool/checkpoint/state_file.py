"""liontool's own layout of optimizer state: one safetensors file, documented in docs/state-file.md.

Tensors are named as torch.distributed.checkpoint flattens them, `state.<parameter>.<name>`; where a
parameter's name is not known, its position stands in its place. All else is JSON in the metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.model import Optimizer, Scheduler
from liontool.checkpoint.plain_values import json_exact, json_value, plain
from liontool.checkpoint.values import from_scalars

SCHEMA = "1"
"""Version of the layout, in the metadata under `liontool.schema`."""


def tensors(optimizer: Optimizer) -> dict[str, TensorRef]:
    """Every state tensor by its name in the file; a plain number becomes a 0-d float32."""
    labels = _labels(optimizer)
    return {
        f"state.{labels[key]}.{name}": (
            value if isinstance(value, TensorRef) else from_scalars("float32", [value])
        )
        for key, slot in optimizer.slots.items()
        for name, value in slot.state.items()
    }


def state_dict(optimizer: Optimizer) -> dict[str, Any]:
    """The same as torch's `state_dict()` gives it: tensors stay tensors, also in groups."""
    return {
        "state": {key: dict(slot.state) for key, slot in optimizer.slots.items()},
        "param_groups": [
            {**group.fields, "params": list(group.params)} for group in optimizer.groups
        ],
    }


def metadata(
    optimizer: Optimizer, class_name: str, provenance: Mapping[str, Any]
) -> dict[str, str]:
    """All that is not a tensor, as safetensors keeps it: strings.

    Args:
        optimizer: What is to be saved.
        class_name: Class and version of what will load it: "liontool.optim.Lion 0.1.0".
        provenance: Where the state came from, in the types of JSON.

    Raises:
        LayoutError: A group holds something that JSON cannot keep.
    """
    return {
        "format": "pt",
        "liontool.schema": SCHEMA,
        "liontool.optimizer": class_name,
        **json_texts(optimizer),
        "liontool.provenance": json.dumps(provenance),
    }


def json_texts(optimizer: Optimizer) -> dict[str, str]:
    """What the metadata say of groups and schedulers.

    Raises:
        LayoutError: A group holds something that JSON cannot keep.
    """
    return {
        "liontool.param_groups": json.dumps(_groups(optimizer)),
        "liontool.lr_scheduler": json.dumps([scheduler_state(s) for s in optimizer.schedulers]),
    }


def scheduler_state(scheduler: Scheduler) -> dict[str, Any]:
    """A scheduler in the types of JSON, nested ones under `_schedulers` as torch keeps them.

    It is there to be read by people: loaders take the state of an optimizer from the file.
    """
    state: dict[str, Any] = json_value(plain(scheduler.fields))
    if scheduler.children:
        state["_schedulers"] = [scheduler_state(child) for child in scheduler.children]
    return state


def _groups(optimizer: Optimizer) -> list[dict[str, Any]]:
    labels = _labels(optimizer)
    return [
        {
            **{
                name: json_exact(value, f"{optimizer.label or 'optimizer'}: group {i}: '{name}'")
                for name, value in group.fields.items()
                if name != "param_names"  # the names are what `params` lists
            },
            "params": [labels[key] for key in group.params],
        }
        for i, group in enumerate(optimizer.groups)
    ]


def _labels(optimizer: Optimizer) -> dict[int | str, str]:
    """The name of each parameter; positions for all where one has no name or two have the same."""
    named = {
        key: name
        for group in optimizer.groups
        for key, name in zip(group.params, group.names, strict=False)
    }
    named.update((key, slot.name) for key, slot in optimizer.slots.items() if slot.name)
    keys = {key for group in optimizer.groups for key in group.params} | optimizer.slots.keys()
    if named.keys() == keys and len(set(named.values())) == len(keys):
        return named
    return {key: str(key) for key in keys}

"""What `load_state_dict` does with a state dict that another version or another package wrote."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import _options
from liontool.states import ADAM_GROUP_KEYS


def adopted(
    optimizer: Optimizer, state_dict: Mapping[str, Any], *, dropped: set[str]
) -> dict[str, Any]:
    """A state dict that `optimizer` can take: missing keys added, foreign keys dropped.

    Args:
        optimizer: A Lion of ours; its groups supply the options that the loaded groups lack.
        state_dict: What the user loads; it is not changed.
        dropped: Gets the names of the foreign keys.

    Raises:
        ValueError: It is Adam's state or no Lion's, shapes differ, or an option has an illegal
            value.
    """
    saved = state_dict["param_groups"]
    # Where counts differ, torch complains afterwards.
    pairs = zip(optimizer.param_groups, saved, strict=False)
    groups = [_adopted_group(live, group, dropped) for live, group in pairs]
    params = _params_by_id(optimizer, saved)
    state = {
        key: _adopted_state(entry, key, params.get(key), dropped)
        for key, entry in state_dict["state"].items()
        if params.get(key) is None or entry
    }
    return {**state_dict, "state": state, "param_groups": [*groups, *saved[len(groups) :]]}


def step_counter(value: Any = 0) -> Tensor:
    """A group's own count of its steps: 0-d, int64, on the CPU, shared with nobody."""
    return torch.tensor(int(value), dtype=torch.int64)


def _adopted_group(
    live: Mapping[str, Any], saved: Mapping[str, Any], dropped: set[str]
) -> dict[str, Any]:
    """The saved group, completed; `step` and `horizon` tell of the saved momentum alone."""
    as_constructed = {
        name: value for name, value in live.items() if name not in ("params", "param_names", "step")
    }
    as_constructed["horizon"] = None
    foreign = _foreign_keys(live, saved)
    dropped |= foreign
    kept = {name: value for name, value in saved.items() if name not in foreign}
    group = {**as_constructed, **kept}
    group["betas"] = tuple(group["betas"])
    group["step"] = step_counter(kept.get("step", 0))
    _options.check(group)
    _options.check_reference_lr(group)
    return group


def _foreign_keys(live: Mapping[str, Any], saved: Mapping[str, Any]) -> set[str]:
    """Keys of Adam that no Lion has. Keys of schedulers and of the user are not among them."""
    foreign = saved.keys() & (ADAM_GROUP_KEYS - live.keys())
    if "amsgrad" in saved and "decoupled_weight_decay" in saved:
        foreign.add("decoupled_weight_decay")  # Adam has one too, and means all of AdamW by it
    return foreign


def _params_by_id(optimizer: Optimizer, saved: list[Mapping[str, Any]]) -> dict[Any, Tensor]:
    return {
        key: param
        for live, group in zip(optimizer.param_groups, saved, strict=False)
        for key, param in zip(group["params"], live["params"], strict=False)
    }


def _adopted_state(entry: Any, key: Any, param: Tensor | None, dropped: set[str]) -> Any:
    """The momentum alone. State that belongs to no parameter is not ours to judge."""
    if param is None:
        return entry
    if "exp_avg_sq" in entry:
        raise ValueError(
            f"parameter {key}: optimizer state holds 'exp_avg_sq', which is Adam's; convert the "
            "checkpoint first: liontool convert CHECKPOINT --lr-ratio R"
        )
    exp_avg = entry.get("exp_avg")
    if not isinstance(exp_avg, Tensor):
        found = ", ".join(repr(name) for name in entry)
        raise ValueError(
            f"parameter {key}: optimizer state has no tensor 'exp_avg', found {found}; "
            "only a Lion's state can be loaded"
        )
    if exp_avg.shape != param.shape:
        raise ValueError(
            f"parameter {key}: 'exp_avg' has shape {tuple(exp_avg.shape)}, the parameter "
            f"{tuple(param.shape)}; load with the model that the state was saved with"
        )
    # Adam's step is left in some files for the sake of their loaders.
    dropped |= entry.keys() - {"exp_avg", "step"}
    return {"exp_avg": exp_avg}

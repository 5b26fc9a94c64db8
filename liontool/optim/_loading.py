"""What `load_state_dict` does: state of any Lion, bit for bit, into a Lion of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from liontool.optim import _dispatch, _foreign, _options, _scalars
from liontool.optim._entries import adopted
from liontool.optim._foreign import Dropped
from liontool.optim._member import Entry, Group, Member

# They tell of the saved momentum alone, so a live group never lends them.
_OF_THE_MOMENTUM = {"horizon": None, "step": 0, "micro_step": 0}
_OF_THE_MODEL = ("params", "param_names")


def load(
    optimizer: Optimizer,
    state_dict: dict[str, Any],
    torch_load: Callable[[dict[str, Any]], None],
) -> None:
    """Load what a Lion has saved, and say in one warning what of it was dropped.

    torch's loader casts tensors to the dtype of their parameter, whatever they are. So it gets the
    groups alone, after all hooks of the user, and the state is put in behind it, before the hooks
    of the user that come after a load.

    Args:
        optimizer: A Lion of ours.
        state_dict: What the user loads; it is not changed, and no tensor of it is shared.
        torch_load: `load_state_dict` of `torch.optim.Optimizer`.

    Raises:
        ValueError: It is Adam's state or no Lion's, it does not fit the parameters, or an option
            has an illegal value. Then the optimizer is as it was.
        RuntimeError: The groups say `fused=True`, and there is no kernel for the parameters.
    """
    dropped = Dropped()
    state: dict[Any, Entry] = {}

    def keep_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        groups = _completed_groups(optimizer.param_groups, saved["param_groups"], dropped)
        members = _members(optimizer.param_groups, groups, saved["param_groups"])
        state.update(adopted(optimizer, saved["state"], members, dropped))
        # State that belongs to no parameter is not ours to judge.
        rest = {key: entry for key, entry in saved["state"].items() if key not in members}
        return {**saved, "state": rest, "param_groups": groups}

    def put_state(_: Optimizer) -> None:
        optimizer.state.update(state)

    handles = (
        optimizer.register_load_state_dict_pre_hook(keep_state),
        optimizer.register_load_state_dict_post_hook(put_state, prepend=True),
    )
    try:
        torch_load(state_dict)
    finally:
        for handle in handles:
            handle.remove()
    if dropped:
        warnings.warn(f"{type(optimizer).__name__} {dropped}", stacklevel=3)


def _completed_groups(
    live_groups: list[Group], saved: list[Group], dropped: Dropped
) -> list[Group]:
    """The saved groups with all of our options; where counts differ, torch complains later."""
    pairs = zip(live_groups, saved, strict=False)
    groups = [_completed(live, group, dropped) for live, group in pairs]
    _options.check_once(groups)
    return [*groups, *saved[len(groups) :]]


def _completed(live: Group, saved: Mapping[str, Any], dropped: Dropped) -> Group:
    constructed = {name: value for name, value in live.items() if name not in _OF_THE_MODEL}
    told = _foreign.group(saved, live, dropped)
    group = {**constructed, **_OF_THE_MOMENTUM, **told}
    group["betas"] = tuple(group["betas"])
    group["state_dtype"] = _options.state_dtype_name(group["state_dtype"])
    _options.check(group)
    _options.check_reference_lr(group)
    for param in live["params"]:
        _options.check_dtype(param, group)
        _dispatch.check_fused(param, group)
    device = _scalars.counter_device({**group, "params": live["params"]})
    for name in _scalars.COUNTERS:
        group[name] = _scalars.counter(group[name], device)
    return group


def _members(
    live_groups: Iterable[Group], groups: Iterable[Group], saved: Iterable[Group]
) -> dict[Any, Member]:
    """Each parameter with its groups, under the name that the saved state has for it."""
    return {
        key: Member(param, live, group, saved_group)
        for live, group, saved_group in zip(live_groups, groups, saved, strict=False)
        for key, param in zip(saved_group["params"], live["params"], strict=False)
    }

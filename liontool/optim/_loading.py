"""What `load_state_dict` does: state of any Lion, bit for bit, into a Lion of ours."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from liontool.optim import _foreign, _groups, _kernels, _options
from liontool.optim._entries import adopted
from liontool.optim._foreign import Dropped
from liontool.optim._member import Entry, Group, Member
from liontool.states import recognise

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
    """
    dropped = Dropped()
    state: dict[Any, Entry] = {}

    def keep_state(_: Optimizer, saved: dict[str, Any]) -> dict[str, Any]:
        _refuse_stranger(saved)
        groups = _completed_groups(optimizer.param_groups, saved["param_groups"], dropped)
        members = _members(optimizer.param_groups, groups, saved["param_groups"])
        state.update(adopted(optimizer, saved["state"], members, dropped))
        _refuse_forgotten(groups, state)
        _share_accumulation(groups, state, dropped)
        # State that belongs to no parameter is not ours to judge.
        rest = {key: entry for key, entry in saved["state"].items() if key not in members}
        unmatched = saved["param_groups"][len(groups) :]  # torch will complain
        return {**saved, "state": rest, "param_groups": [*groups, *unmatched]}

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


def _refuse_stranger(saved: Mapping[str, Any]) -> None:
    """Raise if nothing but the groups of another optimizer were loaded, which state would tell."""
    if not all(isinstance(entry, Mapping) and not entry for entry in saved["state"].values()):
        return
    kind = recognise(saved["param_groups"], ()).kind
    if not kind.startswith("Lion") and kind != "unknown":
        raise ValueError(
            f"the state dict holds no state, and its groups are those of {kind}; only a Lion's can "
            "be loaded, so begin without loading one"
        )


def _refuse_forgotten(groups: Sequence[Group], state: Mapping[Tensor, Entry]) -> None:
    """Raise if steps were made, but their momentum was not read."""
    steps = max((int(group["step"]) for group in groups), default=0)
    if steps and not state:
        raise ValueError(
            f"the loaded groups have made {steps} steps, but no parameter has state; call "
            "optimizer.init_state() before the state dict is made that "
            "torch.distributed.checkpoint reads into, or give the groups a step of 0 to begin anew"
        )


def _share_accumulation(
    groups: Sequence[Group], state: Mapping[Tensor, Entry], dropped: Dropped
) -> None:
    """All groups count the gradients of one sum, the highest number; without a sum it is 0."""
    count = max((int(group["micro_step"]) for group in groups), default=0)
    if count and not any("accumulator" in entry for entry in state.values()):
        if groups[0]["gradient_accumulation_steps"] is not None:
            reason = "no sum of gradients was loaded; it begins anew"
            dropped.add(f"micro_step={count}", reason)
        count = 0
    for group in groups:
        group["micro_step"].fill_(count)


def _completed_groups(
    live_groups: list[Group], saved: list[Group], dropped: Dropped
) -> list[Group]:
    """The saved groups with all of our options, as many as there are live ones."""
    groups = []
    for index, (live, group) in enumerate(zip(live_groups, saved, strict=False)):
        try:
            groups.append(_completed(live, group, dropped))
        except ValueError as error:
            raise ValueError(f"loaded parameter group {index}: {error}") from error
    _options.check_once(groups)
    return groups


def _completed(live: Group, saved: Mapping[str, Any], dropped: Dropped) -> Group:
    constructed = {name: value for name, value in live.items() if name not in _OF_THE_MODEL}
    told = _foreign.group(saved, live, dropped)
    group = {**constructed, **_OF_THE_MOMENTUM, **told, "params": live["params"]}
    _options.check(group)
    if _kernels.refused(group):
        group["fused"] = live["fused"]  # a file from a machine with another kernel
    _groups.complete(group)
    return {**group, "params": saved["params"]}


def _members(
    live_groups: Iterable[Group], groups: Iterable[Group], saved: Iterable[Group]
) -> dict[Any, Member]:
    """Each parameter with its groups, under the name that the saved state has for it."""
    return {
        key: Member(param, live, group, saved_group)
        for live, group, saved_group in zip(live_groups, groups, saved, strict=False)
        for key, param in zip(saved_group["params"], live["params"], strict=False)
    }

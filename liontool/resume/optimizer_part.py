"""An optimizer: what torch casts while it loads is put back, and how it computes stays the live's.

`Optimizer.load_state_dict` casts every state to the dtype of its parameter. A float32 moment of a
bfloat16 parameter would come back rounded, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.errors import ResumeError
from liontool.optim import Lion, LionSF
from liontool.resume.difference import difference
from liontool.resume.trees import copied, mapped

MACHINE = ("foreach", "fused", "capturable", "differentiable")
"""Options that say how to compute, not what: those of the live optimizer stay."""

_NAMES = "param_names"
_KNOWN = ("torch", "liontool")
_LIKE_PARAMETER = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")


class OptimizerPart:
    """An optimizer of torch's kind.

    Args:
        label: "optimizer", or the keyword that it was given by.
        optimizer: Its state is replaced, its parameters are left alone.
    """

    def __init__(self, label: str, optimizer: torch.optim.Optimizer) -> None:
        self.label = label
        self.optimizer = optimizer

    def state(self) -> Any:
        if getattr(self.optimizer, "_is_averaged", False):
            raise ResumeError(
                f"{self.label}: a save inside averaged_weights() would keep the averages in place "
                "of the weights; leave it first"
            )
        return self.optimizer.state_dict()

    def fitted(self, saved: Any) -> Any:
        """The saved state with the options that the live groups decide about."""
        self._check_groups(saved)
        groups = [
            _completed(live, group, isinstance(self.optimizer, (Lion, LionSF)))
            for live, group in zip(self.optimizer.param_groups, saved["param_groups"], strict=True)
        ]
        fitted = {**saved, "param_groups": groups}
        self._check_shapes(fitted)
        return fitted

    def load(self, fitted: Any) -> None:
        before = self.undo()
        try:
            self.optimizer.load_state_dict(copied(fitted))
            self._put_back(fitted)
        except Exception as error:
            self.restore(before)
            said = " ".join(str(error).split())
            raise ResumeError(
                f"{self.label}: {type(self.optimizer).__name__} does not take its state from the "
                f"checkpoint: {said:.500}"
            ) from error

    def undo(self) -> tuple[Any, Any]:
        """What `restore` takes."""
        return self.optimizer.state, self.optimizer.param_groups

    def restore(self, before: tuple[Any, Any]) -> None:
        """Take a load back."""
        self.optimizer.state, self.optimizer.param_groups = before

    def _check_groups(self, saved: Any) -> None:
        if not _is_state(saved):
            raise ResumeError(
                f"{self.label}: what the checkpoint has is no state of an optimizer; go on from "
                "another checkpoint"
            )
        theirs = [len(group["params"]) for group in saved["param_groups"]]
        mine = [len(group["params"]) for group in self.optimizer.param_groups]
        if theirs != mine:
            raise ResumeError(
                f"{self.label}: its groups have {_sum(theirs)} parameters in the checkpoint and "
                f"{_sum(mine)} in this run; build the optimizer with the groups that it was saved "
                "with"
            )

    def _check_shapes(self, fitted: Any) -> None:
        """Others may keep moments of other shapes under these names."""
        if type(self.optimizer).__module__.split(".")[0] not in _KNOWN:
            return
        for key, param in self._keyed(fitted):
            state = fitted["state"].get(key)
            for name in _LIKE_PARAMETER:
                value = state.get(name) if isinstance(state, Mapping) else None
                if isinstance(value, Tensor) and value.shape != param.shape:
                    raise ResumeError(
                        f"{self.label}: '{name}' of parameter {key} has shape "
                        f"{list(value.shape)} in the checkpoint, and its parameter "
                        f"{list(param.shape)}; build the model as it was when it was saved"
                    )

    def _keyed(self, fitted: Any) -> Iterator[tuple[Any, Tensor]]:
        """The saved keys with their parameters."""
        for live, group in zip(self.optimizer.param_groups, fitted["param_groups"], strict=True):
            yield from zip(group["params"], live["params"], strict=True)

    def _put_back(self, fitted: Any) -> None:
        """Replace what was cast or laid out anew by what was saved.

        State that `state_dict` shows in another form than the optimizer keeps it is its own care.
        """
        shown = self.optimizer.state_dict()["state"]
        for key, param in self._keyed(fitted):
            saved, kept = fitted["state"].get(key), self.optimizer.state.get(param)
            if not isinstance(saved, Mapping) or not isinstance(kept, dict):
                continue
            for name, value in saved.items():
                live = kept.get(name)
                is_shown = name in kept and shown.get(key, {}).get(name) is live
                if is_shown and difference(value, live) is not None:
                    kept[name] = _placed(value, live, param)


def _is_state(saved: Any) -> bool:
    """Whether this is laid out as torch's optimizers do it, whatever an optimizer adds to it."""
    if not isinstance(saved, Mapping) or not isinstance(saved.get("state"), Mapping):
        return False
    groups = saved.get("param_groups")
    return isinstance(groups, list) and all(
        isinstance(group, Mapping) and isinstance(group.get("params"), list) for group in groups
    )


def _placed(saved: Any, live: Any, param: Tensor) -> Any:
    """The saved value where the live one lies."""
    device = live.device if isinstance(live, Tensor) else param.device
    return mapped(saved, lambda tensor: tensor.to(device))


def _completed(live: Mapping[str, Any], saved: Mapping[str, Any], is_ours: bool) -> dict[str, Any]:
    """A saved group with what only the live one has, and with its ways to compute.

    Our Lions know themselves what stays as constructed, and whose group it is by what it lacks.
    """
    kept = {name: _like(value, live.get(name)) for name, value in saved.items() if name != _NAMES}
    own = {name for name in live if name in MACHINE or name not in saved} - {"params"}
    if is_ours:
        own &= saved.keys()
    own |= {_NAMES} & live.keys()
    return {**kept, **{name: live[name] for name in live if name in own}}


def _like(saved: Any, live: Any) -> Any:
    """A learning rate that is a tensor stays on its device."""
    if isinstance(saved, Tensor) and isinstance(live, Tensor):
        return saved.to(live.device)
    return saved


def _sum(sizes: list[int]) -> str:
    return " + ".join(map(str, sizes)) or "no"

"""A module: its parameters keep their memory, and no value gets into a tensor of another kind."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from liontool.errors import ResumeError
from liontool.resume.names import bare, matched, quoted
from liontool.resume.strides import is_dense, same_layout


class ModulePart:
    """The model, or a module among the extras.

    Args:
        label: "model", or the keyword that it was given by.
        module: Wrapped and compiled or not.
    """

    def __init__(self, label: str, module: torch.nn.Module) -> None:
        self.label = label
        self._module = module

    def state(self) -> Any:
        state = self._module.state_dict()
        lazy = [name for name, value in state.items() if is_lazy(value)]
        if lazy:
            raise ResumeError(
                f"{self.label}: {quoted(lazy)} has no shape yet; run one batch through it first"
            )
        return state

    def fitted(self, saved: Any) -> Any:
        """The saved tensors under the names of the live ones; every shape and dtype is the same."""
        if not isinstance(saved, dict):
            raise ResumeError(
                f"{self.label}: the checkpoint has a {type(saved).__name__}, which is no state of "
                "a module; go on from another checkpoint"
            )
        live = self._module.state_dict()
        names = matched(live, saved, self.label)
        for name, value in live.items():
            self._check(name, value, saved[names[name]])
        self._check_ties(live, {name: saved[names[name]] for name in live})
        fitted: OrderedDict[str, Any] = OrderedDict((name, saved[names[name]]) for name in live)
        metadata = _metadata(live, saved)
        if metadata is not None:
            fitted._metadata = metadata  # type: ignore[attr-defined]
        return fitted

    def load(self, fitted: Any) -> None:
        try:
            self._module.load_state_dict(fitted)
        except Exception as error:
            said = " ".join(str(error).split())
            raise ResumeError(f"{self.label}: cannot be loaded: {said:.500}") from error

    def _check(self, name: str, live: Any, saved: Any) -> None:
        if isinstance(live, Tensor) != isinstance(saved, Tensor):
            raise ResumeError(
                f"{self.label}: '{name}' is a {type(saved).__name__} in the checkpoint and a "
                f"{type(live).__name__} in this run; build it as it was when it was saved"
            )
        if not isinstance(live, Tensor) or is_lazy(live):
            return
        for what, then, now in (
            ("shape", list(saved.shape), list(live.shape)),
            ("dtype", _word(saved.dtype), _word(live.dtype)),
        ):
            if then != now:
                raise ResumeError(
                    f"{self.label}: '{name}' has {what} {then} in the checkpoint and {now} in "
                    "this run; build it as it was when it was saved, or begin a run in another "
                    "folder"
                )

        shape, theirs, mine = live.shape, saved.stride(), live.stride()
        is_plain = is_dense(shape, theirs) and is_dense(shape, mine)
        if is_plain and not same_layout(shape, theirs, mine):
            raise ResumeError(
                f"{self.label}: '{name}' has strides {list(theirs)} in the checkpoint and "
                f"{list(mine)} in this run, whose sums would round otherwise; give it the "
                "memory_format that it was saved with"
            )

    def _check_ties(self, live: dict[str, Any], saved: dict[str, Any]) -> None:
        mine, theirs = _ties(live), _ties(saved)
        for one, other, where, words in (
            (theirs, mine, "the checkpoint", "this run has apart"),
            (mine, theirs, "this run", "the checkpoint has apart"),
        ):
            for names in one:
                if names not in other:
                    raise ResumeError(
                        f"{self.label}: {quoted(sorted(names))} are one tensor in {where}, which "
                        f"{words}; tie the weights as they were when they were saved"
                    )


def _ties(state: dict[str, Any]) -> set[frozenset[str]]:
    """The names that stand for one and the same tensor."""
    found: dict[Any, list[str]] = {}
    for name, value in state.items():
        if isinstance(value, Tensor) and not is_lazy(value) and value.numel():
            place = value.device, value.data_ptr(), value.shape, value.stride()
            found.setdefault(place, []).append(name)
    return {frozenset(names) for names in found.values() if len(names) > 1}


def _metadata(live: Any, saved: Any) -> Any:
    """The versions of the saved modules, under the names of the live ones."""
    mine, theirs = getattr(live, "_metadata", None), getattr(saved, "_metadata", None)
    if mine is None or theirs is None:
        return mine
    known = {bare(name): versions for name, versions in theirs.items()}
    return OrderedDict((name, known.get(bare(name), mine[name])) for name in mine)


def _word(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

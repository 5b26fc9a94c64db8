"""Hyperparameters on two sides: those of the checkpoint win, and each that differs is said.

What a constructor takes is a hyperparameter, and what the user put into a group beside it; counters
are not. Where a scheduler drives the learning rate, `initial_lr` is compared and not the moment's.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from liontool.checkpoint.learning_rates import KINDS, REFERENCE_KEYS, SCHEDULER_KEYS
from liontool.resume.optimizer_part import MACHINE
from liontool.wording import value as worded

# What steps change, under names that no constructor takes.
_COUNTS = frozenset({"step", "micro_step", "horizon", "rounding_seed", "k", *REFERENCE_KEYS})
_NOT_COMPARED = _COUNTS | {"params", "param_names", *MACHINE}

# Fields of schedulers that are given to constructors under another name.
_FIELDS = {"_milestones", "_schedule_phases", "min_lrs", "max_lrs"}
_NOT_FIELDS = {"last_epoch", "optimizer", "schedulers"}


def group_changes(
    optimizer: torch.optim.Optimizer, saved: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """Name, the checkpoint's value and the constructed one, of each option that differs."""
    live = optimizer.param_groups
    for name in dict.fromkeys(name for group in saved for name in group):
        if not _is_compared(optimizer, name):
            continue
        pairs = [
            (old[name], new[name])
            for old, new in zip(saved, live, strict=True)
            if name in old and name in new and not _is_driven(name, old, new)
        ]
        if any(not _is_same(old, new) for old, new in pairs):
            olds, news = ([pair[side] for pair in pairs] for side in (0, 1))
            yield name, _several(olds), _several(news)


def machine_changes(
    optimizer: torch.optim.Optimizer, saved: Sequence[Mapping[str, Any]]
) -> Iterator[tuple[str, str, str]]:
    """The same for options that say how to compute; there the constructed one stays."""
    for name in MACHINE:
        pairs = [
            (old[name], new[name])
            for old, new in zip(saved, optimizer.param_groups, strict=True)
            if name in old and name in new
        ]
        if any(old != new for old, new in pairs):
            yield name, _several([old for old, _ in pairs]), _several([new for _, new in pairs])


def scheduler_changes(
    scheduler: Any, saved: Mapping[str, Any], label: str, *, moved: bool = False
) -> Iterator[tuple[str, str, str]]:
    """The same for what a scheduler, and those inside it, were constructed with.

    Args:
        scheduler: The live one.
        saved: What the checkpoint has of it.
        label: What to call it.
        moved: Whether its learning rates were changed on purpose, so that nothing is said of them.
    """
    live = scheduler.state_dict()
    given = _given(type(scheduler)) | _FIELDS
    given -= _NOT_FIELDS | (_rates(saved) if moved else set())
    for name, old in saved.items():
        if name in live and name in given and not _is_same(old, live[name]):
            yield f"{label}.{name}", worded(_plain(old)), worded(_plain(live[name]))
    inner, held = getattr(scheduler, "_schedulers", None), saved.get("_schedulers")
    if isinstance(inner, list) and isinstance(held, list):
        for index, (one, state) in enumerate(zip(inner, held, strict=False)):
            if isinstance(state, Mapping):
                yield from scheduler_changes(one, state, f"{label}.{index}", moved=moved)


def _rates(saved: Mapping[str, Any]) -> frozenset[str]:
    """The fields of a scheduler that hold learning rates."""
    return SCHEDULER_KEYS.union(*(kind.rates for kind in KINDS if kind.fits(saved)))


def _is_compared(optimizer: torch.optim.Optimizer, name: str) -> bool:
    if name in _given(type(optimizer)):
        return name not in _NOT_COMPARED
    return name not in _NOT_COMPARED and name not in optimizer.defaults


def _given(kind: type) -> frozenset[str]:
    """The names that the constructors of a class and of its bases take."""
    names: set[str] = set()
    for base in kind.__mro__:
        if "__init__" in vars(base) and base is not object:
            names.update(inspect.signature(base).parameters)
    return frozenset(names - {"self", "args", "kwargs", "defaults"})


def _is_driven(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Whether a scheduler sets this anew at every step."""
    if name == "lr":
        return "initial_lr" in old and "initial_lr" in new
    return name in ("betas", "momentum") and "base_momentum" in old and "base_momentum" in new


def _is_same(old: Any, new: Any) -> bool:
    old, new = _plain(old), _plain(new)
    return bool(old == new) or (old != old and new != new)


def _plain(value: Any) -> Any:
    """Numbers for tensors of one element, and lists for tuples: neither is another value."""
    if isinstance(value, Tensor):
        return value.item() if value.numel() == 1 else value.tolist()
    if isinstance(value, Counter):
        return dict(value)
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _several(values: Sequence[Any]) -> str:
    """One value where all groups have the same, else each."""
    words = [worded(_plain(value)) for value in values]
    return words[0] if len(set(words)) == 1 else " | ".join(words)

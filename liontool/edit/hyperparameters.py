"""Words about hyperparameters: `lr=3e-5`, `weight_decay=x3`, `groups.1.eps=1e-6`.

One word changes a value everywhere: in the groups, where schedulers took it from, and in schedulers
however deep they are nested. `lr` and `weight_decay` are curves: all of a group's numbers move by
one factor, so that the curve keeps its shape. Everything else is a value in the groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from difflib import get_close_matches
from typing import Any

from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.learning_rates import number, walk
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Scheduler
from liontool.edit import curve_moves, curves
from liontool.edit.draft import Draft, Notice
from liontool.edit.noting import noted
from liontool.edit.typed import as_kept
from liontool.edit.words import Scale, Set
from liontool.errors import EditError

_CURVES = {curve.name: curve for curve in (curves.LR, curves.WEIGHT_DECAY)}

_INSTEAD = {
    "initial_lr": "it is the base of the learning rate, and lr= sets that",
    "initial_weight_decay": "it is the base of the weight decay, and weight_decay= sets that",
    "param_names": "names:MODEL_FILE sets it",
}

_SPLIT_BETAS = ("beta1", "beta2")
_BETAS = frozenset({"betas", *_SPLIT_BETAS})
_IN_SCHEDULERS = {"base_momentum": "base_momentums", "max_momentum": "max_momentums"}

Change = Callable[[Value, str], Value]


def change(draft: Draft, word: Set | Scale) -> Draft:
    """A hyperparameter with another value, everywhere.

    Raises:
        EditError: There is no such key or group, the value does not fit, or the word would
            falsify a schedule; the message says which other word does not.
    """
    optimizers = draft.optimizers()
    _check_word(optimizers, word)
    if word.name in _CURVES:
        return curve_moves.change(draft, _CURVES[word.name], word)
    after = [_changed(optimizer, word) for optimizer in optimizers]
    checkpoint = replace(draft.checkpoint, optimizers=tuple(after))
    return noted(replace(draft, checkpoint=checkpoint), _cycle_notes(optimizers, word))


def changed(optimizer: Optimizer, word: Set | Scale) -> tuple[Optimizer, list[Notice]]:
    """One optimizer and its schedulers with another value, and what is to be said of it.

    Raises:
        EditError: As `change` does.
    """
    _check_word([optimizer], word)
    if word.name in _CURVES:
        return curve_moves.changed(optimizer, _CURVES[word.name], word)
    return _changed(optimizer, word), list(_cycle_notes([optimizer], word))


def _check_word(optimizers: Sequence[Optimizer], word: Set | Scale) -> None:
    if word.name in _INSTEAD:
        raise EditError(f"{word.name} is not set by itself: {_INSTEAD[word.name]}")
    _check_group(optimizers, word)
    _check_key(optimizers, word)


def _check_group(optimizers: Sequence[Optimizer], word: Set | Scale) -> None:
    if word.group is None:
        return
    if len(optimizers) > 1:
        labels = ", ".join(optimizer.label for optimizer in optimizers)
        raise EditError(f"each of several optimizers has groups: choose one, --optimizer {labels}")
    count = len(optimizers[0].groups)
    if word.group >= count:
        there = f"group 0 to {count - 1}" if count > 1 else "group 0 alone"
        raise EditError(f"there is no group {word.group}; there is {there}")


def _check_key(optimizers: Sequence[Optimizer], word: Set | Scale) -> None:
    groups = [group for optimizer in optimizers for _, group in _meant(optimizer, word)]
    if any(_has(group.fields, word.name) for group in groups):
        return
    keys = list(dict.fromkeys(str(key) for group in groups for key in group.fields))
    near = get_close_matches(word.name, keys, 3, 0.5) or keys
    where = "no group" if word.group is None else f"group {word.group}"
    has = "has a" if word.group is None else "has no"
    raise EditError(f"{where} {has} '{word.name}'; there is {', '.join(near)}")


def _has(fields: Fields, name: str) -> bool:
    return name in fields or (name == "betas" and set(_SPLIT_BETAS) <= fields.keys())


def _meant(optimizer: Optimizer, word: Set | Scale) -> Iterator[tuple[int, ParamGroup]]:
    """The groups that a word speaks of."""
    for index, group in enumerate(optimizer.groups):
        if word.group in (None, index):
            yield index, group


def _changed(optimizer: Optimizer, word: Set | Scale) -> Optimizer:
    groups = list(optimizer.groups)
    for index, group in _meant(optimizer, word):
        if _has(group.fields, word.name):
            try:
                groups[index] = replace(group, fields=_changed_fields(group.fields, word))
            except EditError as error:
                raise EditError(f"group {index}: {error}") from None
    schedulers = tuple(_changed_scheduler(one, word) for one in optimizer.schedulers)
    return replace(optimizer, groups=tuple(groups), schedulers=schedulers)


def _changed_fields(fields: Fields, word: Set | Scale) -> Fields:
    if word.name in _BETAS:
        return fields.replaced(_betas(fields, word))
    value = _new_value(fields[word.name], word)
    _check_value(word.name, value)
    return fields.replaced({word.name: value})


def _new_value(old: Value, word: Set | Scale) -> Value:
    if isinstance(word, Set):
        return as_kept(old, word.value, word.name)
    found = number(old)
    if found is None or isinstance(old, bool):
        raise EditError(f"{word.name} is not one number, and only a number can be multiplied")
    return as_kept(old, found * word.factor, word.name)


def _check_value(name: str, value: Value) -> None:
    found = number(value)
    if found is not None and found < 0 and not isinstance(value, TensorRef):
        raise EditError(f"{name} must not be negative, got {found}")
    if name.endswith("_momentum") and found is not None and found >= 1:
        raise EditError(f"{name} must lie in [0, 1), got {found}")


def _betas(fields: Fields, word: Set | Scale) -> dict[str, Value]:
    """The betas under all the names that a group has for them."""
    if isinstance(word, Scale):
        raise EditError("betas are set, not multiplied: betas=0.95,0.98")
    old = fields.get("betas")
    if word.name == "betas":
        wanted = word.value
    else:
        kept = old if old is not None else [fields.get(name) for name in _SPLIT_BETAS]
        wanted = list(map(number, kept)) if isinstance(kept, Sequence) else []
        wanted[_SPLIT_BETAS.index(word.name)] = word.value
        wanted = tuple(wanted)
    _check_betas(wanted)
    found: dict[str, Value] = {} if old is None else {"betas": as_kept(old, wanted, "betas")}
    for name, value in zip(_SPLIT_BETAS, wanted, strict=False):
        if name in fields:
            found[name] = as_kept(fields[name], value, name)
    return found


def _check_betas(wanted: Any) -> None:
    betas = wanted if isinstance(wanted, tuple) else (wanted,)
    if len(betas) < 2:
        raise EditError("betas are several, with commas between: betas=0.95,0.98")
    for index, beta in enumerate(betas):
        if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta < 1:
            raise EditError(f"betas[{index}] must lie in [0, 1), got {beta}")


def _changed_scheduler(scheduler: Scheduler, word: Set | Scale) -> Scheduler:
    """CyclicLR keeps of its momenta one a group."""
    children = tuple(_changed_scheduler(child, word) for child in scheduler.children)
    name = _IN_SCHEDULERS.get(word.name)
    held = scheduler.fields.get(name) if name else None
    if name is None or not isinstance(held, Sequence) or isinstance(held, str):
        return replace(scheduler, children=children)
    items = [
        _new_value(item, word) if word.group in (None, index) else item
        for index, item in enumerate(held)
    ]
    return replace(scheduler, fields=scheduler.fields.replaced({name: items}), children=children)


def _cycle_notes(optimizers: Sequence[Optimizer], word: Set | Scale) -> Iterator[Notice]:
    """A scheduler that moves the momentum writes over what was set."""
    if word.name not in _BETAS | {"momentum"}:
        return
    for optimizer in optimizers:
        if any(one.fields.get("cycle_momentum") for one in walk(optimizer.schedulers)):
            what = "momentum" if word.name == "momentum" else "the first beta"
            yield Notice(
                "cycled-momentum",
                f"the scheduler sets {what} anew at every step, between base_momentum and "
                "max_momentum of the groups; for a lasting change set those: "
                "base_momentum=0.9 max_momentum=0.9",
            )

"""Whether the hyperparameters of an optimizer's groups are what an optimizer takes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from math import isfinite

from liontool.checkpoint.document import Value, is_list
from liontool.checkpoint.learning_rates import cycled_betas, number
from liontool.checkpoint.model import Optimizer, ParamGroup
from liontool.checkpoint.plain_values import plain
from liontool.inspect.findings import Finding
from liontool.states import recognise

ADAMW_BETA2 = 0.999
_NOT_NEGATIVE = ("lr", "initial_lr", "weight_decay", "eps")
_SHOWN = 40
_USUAL_BETAS = (0.9, 0.999)


def kind_of(optimizer: Optimizer) -> str:
    """The class as far as all keys tell it."""
    slots = optimizer.slots.values()
    groups = (group.fields for group in optimizer.groups)
    return recognise(groups, (slot.state.keys() for slot in slots)).kind


def is_lion(kind: str) -> bool:
    """Whether it is a Lion, ours or another's."""
    return kind.partition(" ")[0] in ("Lion", "LionSF")


def group_findings(optimizer: Optimizer) -> Iterator[Finding]:
    """What is wrong with the groups of one optimizer, in their order."""
    every = {name for group in optimizer.groups for name in group.fields}
    kind = kind_of(optimizer)
    for index, group in enumerate(optimizer.groups):
        where = group_label(optimizer, index)
        if number(group.fields.get("lr")) is None and _needs_lr(group, kind, every):
            yield Finding("no-lr", where, "it has no learning rate: a step fails")
        for name in _wrong(group, kind):
            value = f"{plain(group.fields[name])!r:.{_SHOWN}}"
            text = f"{name} is {value}, which no optimizer takes"
            yield Finding("hyperparameter-range", where, text)
        missing = sorted(map(str, every - set(group.fields) - {"lr", "param_names", "initial_lr"}))
        if missing:
            text = f"lacks {', '.join(missing)}, which other groups have: a step may fail"
            yield Finding("group-fields-differ", where, text)
        if is_lion(kind):
            yield from _lion(optimizer, group, where)


def group_label(optimizer: Optimizer, index: int) -> str:
    """The optimizer's place in the file, and the group."""
    return f"{optimizer.label}, group {index}" if optimizer.label else f"group {index}"


def _needs_lr(group: ParamGroup, kind: str, every: Collection[str]) -> bool:
    """Some make their own: Adafactor with relative steps, and strangers whose groups have none."""
    own = group.fields.get("lr") is None and group.fields.get("relative_step") is True
    return not own and (kind != "unknown" or "lr" in every)


def _wrong(group: ParamGroup, kind: str) -> Iterator[str]:
    for name in _NOT_NEGATIVE:
        value = group.fields.get(name)
        if value is None or (name == "eps" and is_list(value)):
            continue
        found = number(value)
        if found is None or not isfinite(found) or found < 0:
            yield name
    betas = group.fields.get("betas", _USUAL_BETAS)
    if not _are_betas(betas) and not (kind == "unknown" and _are_betas(betas, one=True)):
        yield "betas"


def _are_betas(value: Value, *, one: bool = False) -> bool:
    """Whether they are two or more from 0 up to 1, which some optimizers take and others do not."""
    if not is_list(value) or len(value) < 2:
        return False
    betas = (number(beta) for beta in value)
    return all(beta is not None and (0 <= beta < 1 or (one and beta == 1)) for beta in betas)


def _lion(optimizer: Optimizer, group: ParamGroup, where: str) -> Iterator[Finding]:
    betas = group.fields.get("betas")
    beta2 = number(betas[1]) if betas is not None and _are_betas(betas) else None
    if beta2 is not None and beta2 >= ADAMW_BETA2:
        text = f"beta2 is {beta2:g}, as AdamW has it; Lion's is 0.99, or 0.98"
        yield Finding("lion-betas", where, text)
    cycle = cycled_betas(group, optimizer.schedulers)
    if cycle:
        text = f"the scheduler goes on setting beta1, between {cycle[0]:g} and {cycle[1]:g}"
        yield Finding("beta1-cycled", where, f"{text}: Lion's own is 0.9, always")

"""Which model and which parameter of it each tensor belongs to, so that none is taken for another.

A file may hold several models (GAN, teacher and student, average beside the weights) whose
parameters have the same names, and each optimizer counts its parameters from 0. What has the same
model and the same name here is one parameter; whatever is not certain stays apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from liontool.checkpoint.model import Optimizer
from liontool.inspect.listing import STATE, TENSOR_FILES, WEIGHT, Item
from liontool.inspect.matching import MatchError, match
from liontool.inspect.model_order import is_in_order, parameters_of, positions
from liontool.inspect.opening import Opened


@dataclass(frozen=True)
class Owner:
    """A parameter.

    Attributes:
        model: Where the weights of its model lie, or the label of its optimizer; "" where its name
            stands for one parameter alone.
        name: Its name, or its position where the name cannot be told for certain.
        inferred: Whether the name is that of the weight at the same place in the model's order and
            of the same shape, since the optimizer has positions alone.
    """

    model: str
    name: str
    inferred: bool = False


@dataclass(frozen=True)
class _Holder:
    """The weights that stand side by side in one mapping, or in the shards of one model.

    Attributes:
        model: What tells it from other holders with the same names.
        weights: In the order of the files.
        names: Of all weights.
    """

    model: str
    weights: Sequence[Item]
    names: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", frozenset(item.name for item in self.weights))


def owners(look: Opened, items: Sequence[Item]) -> dict[int, Owner]:
    """The parameter of each weight and of each tensor of an optimizer's state, by its identity.

    Args:
        look: The checkpoint.
        items: All of its tensors; of some alone the order of the model could not be told.
    """
    holders = _holders(look, items)
    found = {
        id(item.tensor): Owner(holder.model, item.name)
        for holder in holders
        for item in holder.weights
    }
    states = _states(look, holders)
    for item in items:
        if item.role == STATE and item.optimizer is not None and item.parameter is not None:
            found[id(item.tensor)] = states[item.optimizer][item.parameter]
    return found


# --- weights ------------------------------------------------------------------------------------


def _holders(look: Opened, items: Sequence[Item]) -> list[_Holder]:
    """Every mapping of weights; the files of a folder that share no name hold one model."""
    places: dict[str, list[Item]] = {}
    for item in items:
        if item.role == WEIGHT:
            places.setdefault(_place(item), []).append(item)
    often = Counter(name for found in places.values() for name in {item.name for item in found})
    shards: list[Item] = []
    holders = []
    for place, found in places.items():
        if any(often[item.name] > 1 for item in found):
            holders.append(_Holder(place, found))
        elif look.source.is_folder and place.endswith(TENSOR_FILES):
            shards += found
        else:
            holders.append(_Holder("", found))
    return [*holders, _Holder("", shards)] if shards else holders


def _place(item: Item) -> str:
    """What stands before a weight's own name in its label."""
    return item.label.removesuffix(item.name).removesuffix(".")


# --- state --------------------------------------------------------------------------------------


def _states(look: Opened, holders: Sequence[_Holder]) -> list[Mapping[str, Owner]]:
    """For each optimizer the owners of its slots, by their labels."""
    optimizers = look.checkpoint.optimizers if look.checkpoint else ()
    several = len(optimizers) > 1
    found = [_slots(look, optimizer, holders, several) for optimizer in optimizers]
    claims = Counter((one.model, one.name) for slots in found for one in set(slots.values()))
    return [
        _apart(slots, optimizer)
        if any(claims[one.model, one.name] > 1 for one in slots.values())
        else slots
        for slots, optimizer in zip(found, optimizers, strict=True)
    ]


def _apart(slots: Mapping[str, Owner], optimizer: Optimizer) -> dict[str, Owner]:
    """The same parameters, as those of this optimizer alone."""
    return {label: replace(one, model=_own(optimizer)) for label, one in slots.items()}


def _own(optimizer: Optimizer) -> str:
    return optimizer.label or "optimizer"


def _slots(
    look: Opened, optimizer: Optimizer, holders: Sequence[_Holder], several: bool
) -> Mapping[str, Owner]:
    if any(slot.name is not None for slot in optimizer.slots.values()):
        return _named(optimizer, holders, several)
    return _inferred(look, optimizer, holders) or _by_position(optimizer, holders, several)


def _named(optimizer: Optimizer, holders: Sequence[_Holder], several: bool) -> Mapping[str, Owner]:
    """Parameters whose names the file tells, with the one model that has such names."""
    names = {slot.label for slot in optimizer.slots.values()}
    models = {holder.model for holder in holders if names & holder.names}
    unknown = _own(optimizer) if several or models else ""
    model = models.pop() if len(models) == 1 else unknown
    return {name: Owner(model, name) for name in names}


def _inferred(
    look: Opened, optimizer: Optimizer, holders: Sequence[_Holder]
) -> Mapping[str, Owner]:
    """The names of the weights in their place, if there is one way alone; else nothing."""
    wanted = positions(optimizer)
    fits: dict[tuple[str, ...], list[str]] = {}
    for holder in holders:
        pairs = [(item.name, item.tensor) for item in holder.weights]
        named = [(name, tensor.shape) for name, tensor in parameters_of(pairs)]
        try:
            found = match(wanted, named, ordered=is_in_order(pairs, look.source)).names
        except MatchError:
            continue
        fits.setdefault(tuple(name for names in found for name in names), []).append(holder.model)
    if len(fits) != 1:
        return {}
    ((names, models),) = fits.items()
    model = models[0] if len(models) == 1 else _own(optimizer)
    keys = (key for group in optimizer.groups for key in group.params)
    return {
        str(key): Owner(model, name, inferred=True)
        for key, name in zip(keys, names, strict=True)
        if key in optimizer.slots
    }


def _by_position(
    optimizer: Optimizer, holders: Sequence[_Holder], several: bool
) -> Mapping[str, Owner]:
    labels = {slot.label for slot in optimizer.slots.values()}
    is_name = any(labels & holder.names for holder in holders)
    model = _own(optimizer) if several or is_name else ""
    return {label: Owner(model, label) for label in labels}

"""`names:MODEL_FILE`: the parameters of an optimizer get the names of a model's weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from liontool.checkpoint.frameworks.torch_layout import label
from liontool.checkpoint.model import Optimizer
from liontool.checkpoint.source import Source, open_source
from liontool.edit import parameters, reading
from liontool.edit.draft import Draft, Notice, Weight
from liontool.edit.noting import noted
from liontool.edit.words import Names
from liontool.errors import EditError
from liontool.inspect.matching import Match, MatchError, Named, match
from liontool.inspect.model_order import is_in_order, parameters_of, positions

_SHOWN = 3


@dataclass(frozen=True)
class _Model:
    """The weights of one mapping that an optimizer may hold, in order.

    Attributes:
        where: The mapping, for people.
        named: Names and shapes.
        ordered: Whether that order is the model's.
    """

    where: str
    named: tuple[Named, ...]
    ordered: bool


def attach(draft: Draft, word: Names) -> Draft:
    """Names for the parameters, where there is one way alone to give them.

    Raises:
        EditError: Parameters have names, the file has none that fit, or several ways fit.
        ReadError: The file cannot be read.
    """
    optimizers = draft.optimizers()
    for optimizer in optimizers:
        _check_unnamed(optimizer)
    source = open_source(word.file)
    models = list(_models(source))
    if not models:
        raise EditError(f"{word.file}: has no weights by name")
    found = [_match(optimizer, models, word.file) for optimizer in optimizers]
    named = [_named(one, each) for one, each in zip(optimizers, found, strict=True)]
    checkpoint = replace(draft.checkpoint, optimizers=tuple(named))
    several = len(optimizers) > 1
    notices = [
        replace(note, text=f"{optimizer.label}: " * several + note.text)
        for optimizer, each in zip(optimizers, found, strict=True)
        for note in _notes(optimizer, each)
    ]
    return noted(replace(draft, checkpoint=checkpoint), notices)


def _check_unnamed(optimizer: Optimizer) -> None:
    there = list(parameters.names(optimizer).values())
    if there:
        shown = ", ".join(there[:_SHOWN])
        raise EditError(f"parameters have names already: {shown}, ...; rename:OLD=NEW changes them")


# --- the model ----------------------------------------------------------------------------------


def _models(source: Source) -> Iterator[_Model]:
    """Every mapping of weights; those of the files of one model, its shards, are one."""
    holders = reading.draft(source)[0].weights
    tops = [one for one in holders if source.is_folder and not one.place.path]
    if tops:
        weights = [weight for holder in tops for weight in holder.weights]
        yield _model(str(source.path), weights, source)
    for holder in holders:
        if holder not in tops:
            where = label(holder.place)
            yield _model(f"{source.path}: {where}" if where else "", holder.weights, source)


def _model(where: str, weights: Sequence[Weight], source: Source) -> _Model:
    pairs = [(weight.key, weight.tensor) for weight in weights]
    named = tuple((name, tensor.shape) for name, tensor in parameters_of(pairs))
    return _Model(where, named, is_in_order(pairs, source))


# --- the match ----------------------------------------------------------------------------------


def _match(optimizer: Optimizer, models: Sequence[_Model], file: str) -> Match:
    wanted = positions(optimizer)
    found: dict[tuple[tuple[str, ...], ...], tuple[Match, str]] = {}
    faults: list[tuple[int, str]] = []
    for model in models:
        try:
            one = match(wanted, model.named, ordered=model.ordered)
            found.setdefault(one.names, (one, model.where))
        except MatchError as error:
            faults.append((len(model.named), f"{model.where or file}: {error}"))
    if not found:
        raise EditError(max(faults)[1])
    if len(found) > 1:
        places = " and ".join(where for _, where in found.values())
        raise EditError(f"the weights at {places} both fit; drop: one of them in a copy")
    return next(iter(found.values()))[0]


def _named(optimizer: Optimizer, found: Match) -> Optimizer:
    groups = tuple(
        replace(
            group,
            names=names,
            fields=group.fields.replaced({parameters.NAMES: list(names)}),
        )
        for group, names in zip(optimizer.groups, found.names, strict=True)
    )
    by_key: Mapping[int | str, str] = {
        key: name for group in groups for key, name in zip(group.params, group.names, strict=True)
    }
    slots = {key: replace(slot, name=by_key.get(key)) for key, slot in optimizer.slots.items()}
    return replace(optimizer, groups=groups, slots=slots)


def _notes(optimizer: Optimizer, found: Match) -> Iterator[Notice]:
    if found.reordered:
        names = [name for names in found.names for name in names]
        yield Notice(
            "reordered",
            "the file lists the weights in another order than the optimizer; every shape "
            f"occurs once, so that each has its own name: {', '.join(names[:_SHOWN])}, ...",
        )
    count = sum(map(len, found.names))
    if found.by_order:
        yield Notice(
            "named-by-order",
            f"{found.by_order} of {count} parameters share their shape with others and have "
            "their names by order alone: two of them that the script lists the other way round "
            "could not be seen",
        )
    stateless = sum(key not in optimizer.slots for g in optimizer.groups for key in g.params)
    if stateless:
        yield Notice(
            "named-without-state",
            f"{stateless} of {count} parameters have a name and no state; are they frozen?",
        )

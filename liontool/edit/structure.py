"""Words about what there is: `rename`, `drop`, `keep` and `meta`.

A name without `state.` in front is that of a parameter: its weights, its state, and its place in
the groups of the optimizer go together. `state.<parameter>.<name>` is one tensor of the state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from liontool.checkpoint.model import Checkpoint, Optimizer, ParamGroup, Slot
from liontool.edit import parameters, patterns
from liontool.edit.draft import Draft, Notice, Weight, Weights
from liontool.edit.strip import without_horizon
from liontool.edit.words import Drop, Keep, Metadata, Rename
from liontool.errors import EditError

_OURS = "liontool."


def rename(draft: Draft, word: Rename) -> Draft:
    """Other names for weights and parameters, wherever they have one.

    Raises:
        EditError: Nothing has such a name, or two things would have the same.
    """
    new_name = patterns.renamer(word.old, word.new)
    if all(new_name(name) == name for name in patterns.weight_names(draft)):
        raise patterns.nothing(word.old, patterns.weight_names(draft))
    weights = tuple(_renamed(holder, new_name) for holder in draft.weights)
    optimizers = [
        _renamed_optimizer(optimizer, new_name) for optimizer in draft.checkpoint.optimizers
    ]
    return replace(draft, weights=weights, checkpoint=_with(draft.checkpoint, optimizers))


def _renamed(holder: Weights, new_name: Callable[[str], str]) -> Weights:
    names = [weight.name for weight in holder.weights]
    new = [new_name(name) for name in names]
    if new == names:
        return holder
    _check_distinct(names, new)
    weights = zip(holder.weights, new, strict=True)
    return replace(holder, weights=tuple(replace(w, name=name) for w, name in weights))


def _renamed_optimizer(optimizer: Optimizer, new_name: Callable[[str], str]) -> Optimizer:
    names = list(parameters.names(optimizer).values())
    new = [new_name(name) for name in names]
    if new == names:
        return optimizer
    _check_distinct(names, new)
    return parameters.renamed(optimizer, new_name)


def _check_distinct(old: list[str], new: list[str]) -> None:
    """Refuse two things of one name, unless they had one before."""
    taken: dict[str, str] = {}
    for before, after in zip(old, new, strict=True):
        if not after:
            raise EditError(f"'{before}' would have no name left")
        other = taken.setdefault(after, before)
        if other != before:
            raise EditError(f"'{other}' and '{before}' would both be called '{after}'")


def drop(draft: Draft, word: Drop) -> Draft:
    """Less the tensors and parameters that the pattern fits.

    Raises:
        EditError: It fits nothing.
    """
    fits = patterns.matcher(word.glob)
    if not any(map(fits, patterns.all_names(draft))):
        raise patterns.nothing(word.glob, patterns.all_names(draft))
    return _only(
        draft, lambda name: not fits(name), lambda optimizer: _dropped(draft, optimizer, fits)
    )


def keep(draft: Draft, word: Keep) -> Draft:
    """Less all weights, parameters and state tensors that the pattern does not fit.

    A pattern that fits state tensors alone leaves the parameters in their groups.

    Raises:
        EditError: It fits nothing, or parameters have no names to tell their state by.
    """
    fits = patterns.matcher(word.glob)
    if not any(map(fits, patterns.all_names(draft))):
        raise patterns.nothing(word.glob, patterns.all_names(draft))
    if not any(map(fits, patterns.weight_names(draft))):
        return _only(draft, fits, lambda optimizer: _kept_states(draft, optimizer, fits))
    for optimizer in draft.checkpoint.optimizers:
        _check_named(optimizer, word.glob)
    return _only(draft, fits, lambda optimizer: _kept(draft, optimizer, fits))


def metadata(draft: Draft, word: Metadata) -> Draft:
    """A string in the header of a safetensors file; an empty one takes the key away.

    Raises:
        EditError: The container has no metadata, or the key is one of liontool's own.
    """
    if draft.metadata is None:
        raise EditError(_no_metadata(draft))
    if word.key.startswith(_OURS):
        raise EditError(f"'{word.key}' is liontool's own; edit what it stands for, as lr=3e-5 does")
    others = {key: value for key, value in draft.metadata.items() if key != word.key}
    if word.value:
        return replace(draft, metadata={**draft.metadata, word.key: word.value})
    if word.key not in draft.metadata:
        there = ", ".join(sorted(others)) or "none"
        raise EditError(f"there is no '{word.key}' to take away; there is {there}")
    return replace(draft, metadata=others)


def _no_metadata(draft: Draft) -> str:
    source = draft.source
    if source.is_folder:
        return f"{source.path} is a folder; name the safetensors file in it"
    return f"{source.path} is a {source.document().container}; only safetensors files have metadata"


def _only(
    draft: Draft, stays: Callable[[str], bool], change: Callable[[Optimizer], Optimizer]
) -> Draft:
    """The weights that stay, and the optimizers changed."""
    weights = tuple(_left(holder, stays) for holder in draft.weights)
    before = draft.checkpoint.optimizers
    after = [_starting_anew(optimizer, change(optimizer)) for optimizer in before]
    notices = [note for old, new in zip(before, after, strict=True) for note in _notes(old, new)]
    if weights != draft.weights and any(map(_is_unnamed, before)):
        notices.append(Notice("unnamed-parameters", _UNNAMED))
    found = (
        *draft.notices,
        *(note for note in dict.fromkeys(notices) if note not in draft.notices),
    )
    checkpoint = _with(draft.checkpoint, after)
    return replace(draft, weights=weights, checkpoint=checkpoint, notices=found)


def _starting_anew(before: Optimizer, after: Optimizer) -> Optimizer:
    """The groups of which all state is gone average as if there had been none."""

    def group_after(group: ParamGroup) -> ParamGroup:
        had = any(key in before.slots for key in group.params)
        has = any(key in after.slots for key in group.params)
        return without_horizon(group) if had and not has else group

    return replace(after, groups=tuple(map(group_after, after.groups)))


_UNNAMED = (
    "weights are gone, but the optimizer's parameters have no names here, so its groups list them "
    "all as before; attach names first: names:MODEL_FILE"
)


def _left(holder: Weights, stays: Callable[[str], bool]) -> Weights:
    left: tuple[Weight, ...] = tuple(weight for weight in holder.weights if stays(weight.name))
    return holder if len(left) == len(holder.weights) else replace(holder, weights=left)


def _dropped(draft: Draft, optimizer: Optimizer, fits: Callable[[str], bool]) -> Optimizer:
    gone = {key for key, name in parameters.names(optimizer).items() if fits(name)}

    def stays(slot: Slot, field: str) -> bool:
        return not fits(patterns.state_name(draft, optimizer, slot, field))

    return parameters.with_states(parameters.without(optimizer, gone), stays)


def _kept(draft: Draft, optimizer: Optimizer, fits: Callable[[str], bool]) -> Optimizer:
    names = parameters.names(optimizer)
    gone = {key for key, name in names.items() if not fits(name)}
    return parameters.without(optimizer, gone)


def _kept_states(draft: Draft, optimizer: Optimizer, fits: Callable[[str], bool]) -> Optimizer:
    def stays(slot: Slot, field: str) -> bool:
        return fits(patterns.state_name(draft, optimizer, slot, field))

    return parameters.with_states(optimizer, stays)


def _is_unnamed(optimizer: Optimizer) -> bool:
    named = parameters.names(optimizer)
    keys = {key for group in optimizer.groups for key in group.params} | optimizer.slots.keys()
    return not keys <= named.keys()


def _check_named(optimizer: Optimizer, glob: str) -> None:
    if _is_unnamed(optimizer):
        raise EditError(
            f"cannot tell which state belongs to '{glob}': the optimizer's parameters have no "
            "names here; attach them first: names:MODEL_FILE"
        )


def _notes(before: Optimizer, after: Optimizer) -> Iterable[Notice]:
    where = f"{before.label}: " if before.label else ""
    for index, (old, new) in enumerate(zip(before.groups, after.groups, strict=True)):
        if old.params and not new.params:
            text = f"{where}group {index} has no parameters any more, and stays as an empty group"
            yield Notice("empty-group", text)
    partial = {
        name
        for key, slot in after.slots.items()
        if len(slot.state) < len(before.slots[key].state)
        for name in before.slots[key].state
        if name not in slot.state
    }
    if partial:
        yield Notice(
            "partial-state",
            f"{where}{', '.join(sorted(partial))} is gone and the rest of the state is not; an "
            "optimizer that wants both fails at its first step",
        )


def _with(checkpoint: Checkpoint, optimizers: Iterable[Optimizer]) -> Checkpoint:
    return replace(checkpoint, optimizers=tuple(optimizers))

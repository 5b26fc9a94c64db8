"""A word about `lr` or `weight_decay`: one factor for every number of a group's curve.

`x0.5` multiplies all numbers of all groups. A value is what the base becomes, and everything else
moves by the same factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isfinite

from liontool.checkpoint import frameworks
from liontool.checkpoint.learning_rates import number, walk
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup
from liontool.checkpoint.plain_values import plain
from liontool.convert.checking import check_schedulers
from liontool.edit.curve_notes import notes, outside, shared_notes
from liontool.edit.curves import LR, Curve, base, meant
from liontool.edit.draft import Draft, Notice
from liontool.edit.moving import STAY, Move, moved_group, moved_scheduler
from liontool.edit.noting import noted
from liontool.edit.typed import as_kept
from liontool.edit.words import Scale, Set
from liontool.errors import EditError, LayoutError


def change(draft: Draft, curve: Curve, word: Set | Scale) -> Draft:
    """The curve of all groups, or of one, moved.

    Raises:
        EditError: The value is none that it can have, or one number of a scheduler serves groups
            that would move differently.
    """
    _check(curve, word)
    _check_loose(draft, curve, word)
    check_schedulers(draft.checkpoint.loose_schedulers)
    after: list[Optimizer] = []
    notices: list[Notice] = []
    for optimizer in draft.optimizers():
        one, said = changed(optimizer, curve, word)
        after.append(one)
        several = len(draft.checkpoint.optimizers) > 1
        notices += [replace(n, text=f"{optimizer.label}: " * several + n.text) for n in said]
    checkpoint = replace(draft.checkpoint, optimizers=tuple(after))
    if isinstance(word, Scale) and word.group is None:
        moves = [Move(word.factor)]
        loose = checkpoint.loose_schedulers
        moved = (moved_scheduler(one, curve.scheduler_keys, moves) for one in loose)
        checkpoint = replace(checkpoint, loose_schedulers=tuple(moved))
    notices += outside(draft, curve)
    return noted(replace(draft, checkpoint=checkpoint), notices)


def changed(
    optimizer: Optimizer, curve: Curve, word: Set | Scale
) -> tuple[Optimizer, list[Notice]]:
    """One optimizer and its schedulers with the curve moved, and what is to be said of it.

    Raises:
        EditError: The value is none that it can have, or one number of a scheduler serves groups
            that would move differently.
    """
    _check(curve, word)
    _check_numbers(optimizer, curve)
    return _changed(optimizer, curve, word)


def _check(curve: Curve, word: Set | Scale) -> None:
    value = word.value if isinstance(word, Set) else word.factor
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise EditError(f"{curve.name} takes a number such as 3e-5, or a factor such as x0.5")
    if not isfinite(value) or value < 0:
        raise EditError(f"{curve.name} must be a finite number and not negative, got {value}")


def _check_numbers(optimizer: Optimizer, curve: Curve) -> None:
    """Everything that moves must be a number, or missing."""
    for index, group in enumerate(optimizer.groups):
        for name in curve.group_keys:
            value = group.fields.get(name)
            if value is not None and (number(value) is None or isinstance(value, bool)):
                raise EditError(f"group {index}: {name} is {plain(value)!r:.60}, not a number")
    check_schedulers(optimizer.schedulers)


def _check_loose(draft: Draft, curve: Curve, word: Set | Scale) -> None:
    """A scheduler of no known optimizer can take part only where all groups move alike."""
    loose = [
        one for one in walk(draft.checkpoint.loose_schedulers) if len(curve.scheduler_keys(one))
    ]
    if not loose:
        return
    labels = ", ".join(one.label for one in loose)
    if not isinstance(word, Scale) or word.group is not None:
        raise EditError(
            f"cannot tell which optimizer the scheduler at {labels} drives; change all alike: "
            f"{curve.name}=x0.5"
        )
    if len(_all_optimizers(draft)) > len(draft.checkpoint.optimizers):
        raise EditError(
            f"cannot tell whether the scheduler at {labels} drives an optimizer that is edited; "
            "leave --optimizer out"
        )


def _all_optimizers(draft: Draft) -> Sequence[Optimizer]:
    """Those of the file, of which the user may have chosen some."""
    try:
        return frameworks.find(draft.source, draft.checkpoint.framework)[1].optimizers
    except LayoutError:  # they were found by their paths alone
        return draft.checkpoint.optimizers


def _changed(
    optimizer: Optimizer, curve: Curve, word: Set | Scale
) -> tuple[Optimizer, list[Notice]]:
    chosen = meant(optimizer, curve, word)
    bases = [base(optimizer, index, curve) for index in range(len(optimizer.groups))]
    moves: list[Move | None] = []
    for index, top in enumerate(bases):
        if index in chosen:
            moves.append(_move(optimizer, index, top, curve, word))
        else:
            moves.append(STAY if top else None)  # of a group that is all 0 nothing moves
    said = list(shared_notes(optimizer, bases, moves, curve, word))
    groups = tuple(
        _changed_group(group, move, curve, word if index in chosen else None)
        for index, (group, move) in enumerate(zip(optimizer.groups, moves, strict=True))
    )
    schedulers = (moved_scheduler(one, curve.scheduler_keys, moves) for one in optimizer.schedulers)
    after = replace(optimizer, groups=groups, schedulers=tuple(schedulers))
    return after, [*said, *notes(optimizer, after, bases, curve, word)]


def _move(
    optimizer: Optimizer, index: int, top: float, curve: Curve, word: Set | Scale
) -> Move | None:
    if isinstance(word, Scale):
        return Move(word.factor)
    where = f"group {index}"
    driven = any(len(curve.scheduler_keys(one)) for one in walk(optimizer.schedulers))
    if not top:
        if driven and curve is LR:
            raise EditError(
                f"{where}: its learning rate is 0, its base too, so the shape of its curve "
                "cannot be told; edit an earlier checkpoint"
            )
        return None
    if not word.value and driven:
        raise EditError(
            f"{where}: a {curve.title} of 0 would leave nothing of the schedule to come back "
            "to; drop the scheduler from the script, or take a small number"
        )
    if not isfinite(top):
        raise EditError(f"{where}: its {curve.title} is {top}, and has no curve to move")
    return Move(float(word.value) / top, top, float(word.value))


def _changed_group(
    group: ParamGroup, move: Move | None, curve: Curve, word: Set | Scale | None
) -> ParamGroup:
    if move is not None:
        fields = moved_group(group.fields, curve.group_keys, move)
    elif isinstance(word, Set):  # all is 0, and there is no curve
        value = as_kept(group.fields[curve.name], word.value, curve.name)
        fields = group.fields.replaced({curve.name: value})
    else:
        return group
    _check_result(fields, curve)
    return group if fields is group.fields else replace(group, fields=fields)


def _check_result(fields: Fields, curve: Curve) -> None:
    for name in curve.group_keys:
        found = number(fields.get(name))
        if found is not None and not isfinite(found):
            raise EditError(f"{name} would be {found}")

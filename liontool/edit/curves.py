"""`lr` and `weight_decay` as words: one factor for every number of a group's curve.

`x0.5` multiplies all numbers of all groups. A value is what the base becomes, and everything else
moves by the same factor. The base of a group is the highest of `initial_lr`, `max_lr` and the
`max_lrs` of its schedulers, or `lr` where there are none of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import isfinite

from liontool.checkpoint import frameworks, learning_rates
from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import number, walk
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Scheduler
from liontool.checkpoint.plain_values import plain
from liontool.convert.checking import check_schedulers
from liontool.edit.draft import Draft, Notice
from liontool.edit.moving import STAY, Move, moved_group, moved_scheduler, shared
from liontool.edit.noting import noted
from liontool.edit.typed import as_kept
from liontool.edit.words import Scale, Set
from liontool.errors import EditError, LayoutError


@dataclass(frozen=True)
class Curve:
    """Numbers of a group and of schedulers that move together.

    Attributes:
        name: The word, and the key of the present value.
        title: What to call it.
        group_keys: All keys of a group that take part.
        base_keys: Those of them that tell the base, if it is not the present value.
        tops: Fields of schedulers that tell the base, one number a group.
        scheduler_keys: The fields of a scheduler that take part.
        floors: Those of them under which the curve does not fall, one number for all groups.
        spares_zero: Whether a value for all groups passes over groups that have 0.
    """

    name: str
    title: str
    group_keys: tuple[str, ...]
    base_keys: tuple[str, ...]
    tops: tuple[str, ...]
    scheduler_keys: Callable[[Scheduler], Sequence[str]]
    floors: tuple[str, ...]
    spares_zero: bool = False


LR = Curve(
    "lr",
    "learning rate",
    (*learning_rates.GROUP_KEYS, *learning_rates.REFERENCE_KEYS),
    ("initial_lr", "max_lr"),
    ("max_lrs",),
    learning_rates.rate_keys,
    ("eta_min",),
)
WEIGHT_DECAY = Curve(
    "weight_decay",
    "weight decay",
    ("weight_decay", "initial_weight_decay"),
    ("initial_weight_decay",),
    (),
    learning_rates.decay_keys,
    (),
    spares_zero=True,
)

# They bound the smallest step of the curve, and groups that are added later: no value of it.
_HARMLESS = ("eps", "default_min_lr")


def change(draft: Draft, curve: Curve, word: Set | Scale) -> Draft:
    """The curve of all groups, or of one, moved.

    Raises:
        EditError: The value is none that it can have, or one number of a scheduler serves groups
            that would move differently.
    """
    _check(curve, word)
    _check_loose(draft, curve, word)
    for optimizer in draft.optimizers():
        _check_numbers(optimizer, curve)
    check_schedulers(draft.checkpoint.loose_schedulers)
    changed: list[Optimizer] = []
    notices: list[Notice] = []
    for optimizer in draft.optimizers():
        after, notes = _changed(optimizer, curve, word)
        changed.append(after)
        several = len(draft.checkpoint.optimizers) > 1
        notices += [replace(n, text=f"{optimizer.label}: " * several + n.text) for n in notes]
    checkpoint = replace(draft.checkpoint, optimizers=tuple(changed))
    if isinstance(word, Scale) and word.group is None:
        moves = [Move(word.factor)]
        loose = checkpoint.loose_schedulers
        moved = (moved_scheduler(one, curve.scheduler_keys, moves) for one in loose)
        checkpoint = replace(checkpoint, loose_schedulers=tuple(moved))
    notices += _outside(draft, curve)
    return noted(replace(draft, checkpoint=checkpoint), notices)


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
    meant = _meant(optimizer, curve, word)
    bases = [_base(optimizer, index, curve) for index in range(len(optimizer.groups))]
    moves = [
        _move(optimizer, index, bases[index], curve, word) if index in meant else STAY
        for index in range(len(optimizer.groups))
    ]
    for index, base in enumerate(bases):
        if index not in meant and not base:
            moves[index] = None  # nothing of it moves
    notices = list(_shared_notes(optimizer, bases, moves, curve, word))
    groups = tuple(
        _changed_group(group, move, curve, word if index in meant else None)
        for index, (group, move) in enumerate(zip(optimizer.groups, moves, strict=True))
    )
    schedulers = (moved_scheduler(one, curve.scheduler_keys, moves) for one in optimizer.schedulers)
    after = replace(optimizer, groups=groups, schedulers=tuple(schedulers))
    notices += _notes(optimizer, after, bases, curve, word)
    return after, notices


def _meant(optimizer: Optimizer, curve: Curve, word: Set | Scale) -> list[int]:
    """The groups that the word changes."""
    there = [i for i, group in enumerate(optimizer.groups) if curve.name in group.fields]
    if word.group is not None:
        return [word.group]
    if curve.spares_zero and isinstance(word, Set):
        there = [i for i in there if _base(optimizer, i, curve)] or there
    return there


def _base(optimizer: Optimizer, index: int, curve: Curve) -> float:
    """What a value in a word stands for."""
    fields = optimizer.groups[index].fields
    tops = [number(fields.get(name)) for name in curve.base_keys]
    for scheduler in walk(optimizer.schedulers):
        tops += [_one_of(scheduler.fields.get(name), index) for name in curve.tops]
    return max((top for top in tops if top), default=0.0) or number(fields.get(curve.name)) or 0.0


def _one_of(value: Value, index: int) -> float | None:
    """The number of one group from a list with one for each."""
    is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return number(value[index]) if is_list and index < len(value) else None


def _move(
    optimizer: Optimizer, index: int, base: float, curve: Curve, word: Set | Scale
) -> Move | None:
    if isinstance(word, Scale):
        return Move(word.factor)
    where = f"group {index}"
    driven = any(len(curve.scheduler_keys(one)) for one in walk(optimizer.schedulers))
    if not base:
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
    if not isfinite(base):
        raise EditError(f"{where}: its {curve.title} is {base}, and has no curve to move")
    return Move(float(word.value) / base, base, float(word.value))


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


def _shared_notes(
    optimizer: Optimizer,
    bases: Sequence[float],
    moves: Sequence[Move | None],
    curve: Curve,
    word: Set | Scale,
) -> Iterator[Notice]:
    """What to say of a number that serves groups which move differently.

    Raises:
        EditError: The schedule would not be what the word says.
    """
    for where, found in shared(optimizer.schedulers, curve.scheduler_keys, moves):
        name = where.split()[0]
        if name in _HARMLESS:
            continue
        if word.group is None or name not in curve.floors:
            raise EditError(
                f"{where} is one number for all groups, {found:g}, and they would move by "
                f"different factors; {curve.name}=x0.5 moves all alike"
                + (f", groups.N.{curve.name}= moves one" if name in curve.floors else "")
            )
        move = moves[word.group]
        new = bases[word.group] if move is None else move(bases[word.group])
        if found > new:
            raise EditError(
                f"{where} is one number for all groups, {found:g}, and above {new:g}: group "
                f"{word.group} would rise to it; {curve.name}=x0.5 moves all alike"
            )
        yield Notice(
            "shared-minimum",
            f"{where} is one number for all groups and stays {found:g}, for group {word.group} too",
        )


def _notes(
    before: Optimizer, after: Optimizer, bases: Sequence[float], curve: Curve, word: Set | Scale
) -> Iterator[Notice]:
    if not isinstance(word, Set):
        return
    meant = _meant(before, curve, word)
    if len({bases[index] for index in meant}) > 1:
        found = ", ".join(f"{bases[index]:g}" for index in meant)
        yield Notice(
            "groups-differed",
            f"the groups had a {curve.title} of {found} and have the same now; "
            f"{curve.name}=x0.5 would keep their ratios",
        )
    for (base, now), indices in _places(after, bases, meant, curve).items():
        if base and not _near(now, word.value):
            yield Notice(
                "place-in-curve",
                f"{_groups(indices)}: the base of the {curve.title} was {base:g} and is "
                f"{word.value:g}; at this step of the schedule that is {now:g}",
            )
    spared = [i for i, group in enumerate(before.groups) if curve.name in group.fields]
    spared = [i for i in spared if word.group is None and i not in meant]
    if spared:
        yield Notice(
            "group-without",
            f"{_groups(spared)}: a {curve.title} of 0 stays 0; to set it: "
            f"groups.{spared[0]}.{curve.name}={word.value:g}",
        )


def _places(
    after: Optimizer, bases: Sequence[float], meant: Sequence[int], curve: Curve
) -> dict[tuple[float, float], list[int]]:
    """The groups by what their base was and what they have now."""
    found: dict[tuple[float, float], list[int]] = {}
    for index in meant:
        now = number(after.groups[index].fields.get(curve.name))
        if now is not None:
            found.setdefault((bases[index], now), []).append(index)
    return found


def _groups(indices: Sequence[int]) -> str:
    return f"group{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * abs(other)


def _outside(draft: Draft, curve: Curve) -> Iterator[Notice]:
    """What the file does not hold."""
    checkpoint = draft.checkpoint
    schedulers = [one for optimizer in checkpoint.optimizers for one in optimizer.schedulers]
    schedulers += checkpoint.loose_schedulers
    if curve is WEIGHT_DECAY:
        schedulers = [one for one in walk(schedulers) if len(curve.scheduler_keys(one))]
    for text in learning_rates.notes(schedulers, "change"):
        yield Notice("scheduler", text)
    argument = {"lr": "learning_rate"}.get(curve.name, curve.name)
    if checkpoint.framework == "hf-trainer" and argument in checkpoint.facts:
        yield Notice(
            "trainer-arguments",
            f"the checkpoint's {curve.title} wins on a resume; TrainingArguments said {argument}="
            f"{checkpoint.facts[argument]}",
        )

"""What is to be said of a curve that moved, and where it must not move."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.checkpoint import learning_rates
from liontool.checkpoint.learning_rates import number, walk
from liontool.checkpoint.model import Optimizer
from liontool.edit.curves import WEIGHT_DECAY, Curve, meant
from liontool.edit.draft import Draft, Notice
from liontool.edit.moving import Move, shared
from liontool.edit.words import Scale, Set
from liontool.errors import EditError

# They bound the smallest step of the curve, and groups that are added later: no value of it.
_HARMLESS = ("eps", "default_min_lr")


def shared_notes(
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


def notes(
    before: Optimizer, after: Optimizer, bases: Sequence[float], curve: Curve, word: Set | Scale
) -> Iterator[Notice]:
    if not isinstance(word, Set):
        return
    chosen = meant(before, curve, word)
    if len({bases[index] for index in chosen}) > 1:
        found = ", ".join(f"{bases[index]:g}" for index in chosen)
        yield Notice(
            "groups-differed",
            f"the groups had a {curve.title} of {found} and have the same now; "
            f"{curve.name}=x0.5 would keep their ratios",
        )
    for (base, now), indices in _places(after, bases, chosen, curve).items():
        if base and not _near(now, word.value):
            yield Notice(
                "place-in-curve",
                f"{_groups(indices)}: the base of the {curve.title} was {base:g} and is "
                f"{word.value:g}; at this step of the schedule that is {now:g}",
            )
    spared = [i for i, group in enumerate(before.groups) if curve.name in group.fields]
    spared = [i for i in spared if word.group is None and i not in chosen]
    if spared:
        yield Notice(
            "group-without",
            f"{_groups(spared)}: a {curve.title} of 0 stays 0; to set it: "
            f"groups.{spared[0]}.{curve.name}={word.value:g}",
        )


def _places(
    after: Optimizer, bases: Sequence[float], chosen: Sequence[int], curve: Curve
) -> dict[tuple[float, float], list[int]]:
    """The groups by what their base was and what they have now."""
    found: dict[tuple[float, float], list[int]] = {}
    for index in chosen:
        now = number(after.groups[index].fields.get(curve.name))
        if now is not None:
            found.setdefault((bases[index], now), []).append(index)
    return found


def _groups(indices: Sequence[int]) -> str:
    return f"group{'s' * (len(indices) > 1)} {', '.join(map(str, indices))}"


def _near(one: float, other: float) -> bool:
    return abs(one - other) <= 1e-6 * abs(other)


def outside(draft: Draft, curve: Curve) -> Iterator[Notice]:
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

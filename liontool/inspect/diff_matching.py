"""Which tensors of two checkpoints belong together, whatever the containers and frameworks.

Weights go by their names, state by its parameter's, everything else by its path.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from liontool.checkpoint.model import Checkpoint
from liontool.inspect.diff_names import Renames, paired_names
from liontool.inspect.diff_parameters import Partners
from liontool.inspect.globs import matcher
from liontool.inspect.listing import STATE, WEIGHT, Item

_Key = Callable[[Item], Hashable]


@dataclass(frozen=True)
class Matching:
    """The tensors of two checkpoints.

    Attributes:
        pairs: Those that belong together, in the order of A.
        only_a: Those without a counterpart in B.
        only_b: Those without a counterpart in A.
        notes: How they were matched, where that is not plain.
    """

    pairs: tuple[tuple[Item, Item], ...]
    only_a: tuple[Item, ...]
    only_b: tuple[Item, ...]
    notes: tuple[str, ...] = ()

    def filtered(self, patterns: Sequence[str]) -> Matching:
        """Those with a name that fits the patterns, see `globs.matcher`.

        Raises:
            ValueError: They fit nothing.
        """
        if not patterns:
            return self
        fits = matcher(patterns)
        found = Matching(
            tuple(pair for pair in self.pairs if any(fits(item.name) for item in pair)),
            tuple(item for item in self.only_a if fits(item.name)),
            tuple(item for item in self.only_b if fits(item.name)),
            self.notes,
        )
        if not (found.pairs or found.only_a or found.only_b):
            raise ValueError(f"--filter {' '.join(patterns)}: no tensor of A or B is called so")
        return found


def matched(
    a: Sequence[Item],
    b: Sequence[Item],
    models: tuple[Checkpoint | None, Checkpoint | None],
    partners: Sequence[Partners],
    renames: Renames,
) -> Matching:
    """Match tensors.

    Args:
        a: The tensors of A.
        b: The tensors of B.
        models: What the frameworks found in A and B.
        partners: Which parameters of each pair of optimizers belong together.
        renames: What the user says of names; counted as used where it fits.
    """
    pairs = _as_said(a, b, renames)
    done = {id(item) for pair in pairs for item in pair}
    rest_a, rest_b = ([item for item in side if id(item) not in done] for side in (a, b))
    weights = paired_names(_weights(rest_a), _weights(rest_b), renames)
    labels = _state_labels(models, partners)

    def key_of_a(item: Item) -> Hashable:
        if item.role == STATE:
            place = item.optimizer, item.parameter
            return item.role, item.optimizer, labels.get(place, (None, item.parameter)), item.field
        name = weights.pairs.get(item.name, (None, item.name)) if item.role == WEIGHT else item.name
        return item.role, name

    more, only_a, only_b, notes = _joined(rest_a, rest_b, key_of_a, _key_of_b)
    order = {id(item): place for place, item in enumerate(a)}
    pairs = sorted([*pairs, *more], key=lambda pair: order[id(pair[0])])
    return Matching(tuple(pairs), only_a, only_b, (*weights.notes, *notes))


def _weights(items: Iterable[Item]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(item.name for item in items if item.role == WEIGHT))


def _as_said(a: Sequence[Item], b: Sequence[Item], renames: Renames) -> list[tuple[Item, Item]]:
    """Pairs for which the user gave whole names, or places in the files."""
    found: dict[int, tuple[Item, Item]] = {}
    names = {item.name: item for item in reversed(b)}
    labels = {item.label: item for item in reversed(b)}
    for item in a:
        for text, known in ((item.name, names), (item.label, labels)):
            target = renames(text)
            other = None if target is None else known.get(target)
            if other is not None and id(other) not in found:
                found[id(other)] = item, other
                break
    return list(found.values())


def _key_of_b(item: Item) -> Hashable:
    if item.role == STATE:
        return item.role, item.optimizer, item.parameter, item.field
    return item.role, item.name


def _state_labels(
    models: tuple[Checkpoint | None, Checkpoint | None], partners: Sequence[Partners]
) -> dict[tuple[int | None, str | None], str]:
    """What B calls the parameters that A has state of, by A's optimizer and name."""
    a, b = models
    if a is None or b is None:
        return {}
    return {
        (index, slot.label): new.slots[partner.keys[key]].label
        for index, (old, new, partner) in enumerate(
            zip(a.optimizers, b.optimizers, partners, strict=False)
        )
        for key, slot in old.slots.items()
        if partner.keys.get(key) in new.slots
    }


def _joined(
    a: Sequence[Item], b: Sequence[Item], key_of_a: _Key, key_of_b: _Key
) -> tuple[list[tuple[Item, Item]], tuple[Item, ...], tuple[Item, ...], tuple[str, ...]]:
    """Pairs with equal keys; those that share one with others go by label, else by order."""
    held_a, held_b = _by_key(a, key_of_a), _by_key(b, key_of_b)
    pairs: list[tuple[Item, Item]] = []
    shared: list[str] = []
    for key, items in held_a.items():
        others = held_b.get(key, [])
        if others and len(items) + len(others) > 2:
            shared.append(items[0].name)
        pairs += _by_label(items, others)
    done = {id(item) for pair in pairs for item in pair}
    only_a, only_b = (tuple(item for item in side if id(item) not in done) for side in (a, b))
    return pairs, only_a, only_b, _shared_note(shared)


def _by_key(items: Iterable[Item], key: _Key) -> dict[Hashable, list[Item]]:
    found: dict[Hashable, list[Item]] = {}
    for item in items:
        found.setdefault(key(item), []).append(item)
    return found


def _by_label(a: Sequence[Item], b: Sequence[Item]) -> list[tuple[Item, Item]]:
    if len(a) == len(b) == 1:
        return [(a[0], b[0])]
    labels: Mapping[str, Item] = {item.label: item for item in b}
    pairs = [(item, labels[item.label]) for item in a if item.label in labels]
    done = {id(item) for pair in pairs for item in pair}
    rest = ([item for item in side if id(item) not in done] for side in (a, b))
    return pairs + list(zip(*rest, strict=False))


def _shared_note(names: Sequence[str]) -> tuple[str, ...]:
    if not names:
        return ()
    return (
        f"{len(names)} names stand for several tensors of a side, {names[0]} for one: these were "
        "matched by their places in the files, else in order; --map old=new says it otherwise",
    )

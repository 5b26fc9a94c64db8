"""Which weights the parameters of an optimizer are, by order and by shape; never by a guess.

An optimizer's groups list parameters in the order of the model, each group a part of it. So names
in the order of the model are dealt out to the groups: each name goes to a group that has its shape
next, or to none where the model has more weights than the optimizer. Two ways to do that are no
answer. Where order does not help, a shape that occurs once does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from liontool.errors import LiontoolError

Shape = tuple[int, ...]
Named = tuple[str, Shape]

Positions = Sequence[Sequence[Shape | None]]
"""The shapes of each group's parameters in order; None where there is no state to tell."""

_MOST_STATES = 200_000
_MOST_TRIES = 5_000_000  # counts of groups copied or looked at, about a second

# How many parameters of each group have their name, and how that came about: with the state before
# and the group that took the name, None for a name that was left out. First and last way alone.
_State = tuple[int, ...]
_Way = tuple[_State, int | None]
_Layer = dict[_State, tuple[_Way, _Way]]


class MatchError(LiontoolError):
    """No way to name all positions, or more than one; the message says where."""


@dataclass(frozen=True)
class Match:
    """Names for all positions.

    Attributes:
        names: Of each group's parameters in order.
        by_order: How many positions share their shape, so that order alone tells them apart.
        reordered: Whether the order of the names is not that of the parameters.
    """

    names: tuple[tuple[str, ...], ...]
    by_order: int
    reordered: bool


def match(positions: Positions, named: Sequence[Named], *, ordered: bool) -> Match:
    """The one way to name all positions.

    Args:
        positions: What the optimizer has.
        named: Names and shapes, in the order of the model where `ordered`.
        ordered: Whether the order says anything.

    Raises:
        MatchError: There is no way, or more than one; the message says where.
    """
    count = sum(map(len, positions))
    if len(named) < count:
        raise MatchError(f"{_counts(positions, named)}{_first_mismatch(positions, named)}")
    if not ordered:
        found = _by_shape(positions, named)
        if found is None:
            raise MatchError(_unordered(positions, named))
        return Match(found, 0, False)
    ways = _ways(positions, named)
    if ways is not None:
        first, last = ways
        if first != last:
            raise MatchError(_two_ways(positions, first, last))
        return Match(first, _shared_shapes(positions, named), False)
    found = _by_shape(positions, named)
    if found is None:
        raise MatchError(_no_way(positions, named))
    return Match(found, 0, True)


# --- by order -----------------------------------------------------------------------------------


def _ways(
    positions: Positions, named: Sequence[Named]
) -> tuple[tuple[tuple[str, ...], ...], ...] | None:
    """Two ways to deal the names out, the same one twice if there is one alone; None if none."""
    layers = list(_layers(positions, named))
    end = tuple(map(len, positions))
    if end not in layers[-1]:
        return None
    return tuple(_names(layers, end, named, which) for which in (0, 1))


def _layers(positions: Positions, named: Sequence[Named]) -> Iterator[_Layer]:
    """After each name, every state that can be reached."""
    start = tuple(0 for _ in positions)
    spare = max(len(named) - sum(map(len, positions)), 0)
    layer: _Layer = {start: ((start, None), (start, None))}
    states = tries = 0
    yield layer
    for index, (_, shape) in enumerate(named):
        after: _Layer = {}
        for state in layer:
            for group, new in _next(positions, state, shape, spare - (index - sum(state))):
                way = (state, group)
                after[new] = (after[new][0] if new in after else way, way)
                tries += len(positions)
                _check_effort(states + len(after), tries)
            tries += len(positions)
        states += len(after)
        _check_effort(states, tries)
        layer = after
        yield layer


def _check_effort(states: int, tries: int) -> None:
    if states > _MOST_STATES or tries > _MOST_TRIES:
        raise MatchError(
            "there are too many ways to deal the names out to the groups; "
            "save the optimizer with names: AdamW(model.named_parameters())"
        )


def _next(
    positions: Positions, state: _State, shape: Shape, spare: int
) -> Iterator[tuple[int | None, _State]]:
    """Where a name of this shape can go."""
    for group, shapes in enumerate(positions):
        done = state[group]
        if done < len(shapes) and shapes[done] in (None, shape):
            yield group, (*state[:group], done + 1, *state[group + 1 :])
    if spare > 0:
        yield None, state


def _names(
    layers: Sequence[_Layer], end: _State, named: Sequence[Named], which: int
) -> tuple[tuple[str, ...], ...]:
    """The way back from the end, always by the first or always by the last of the ways there."""
    found: list[list[str]] = [[] for _ in end]
    state = end
    for layer, (name, _) in zip(reversed(layers), reversed(named), strict=False):
        state, group = layer[state][which]
        if group is not None:
            found[group].append(name)
    return tuple(tuple(reversed(names)) for names in found)


def _shared_shapes(positions: Positions, named: Sequence[Named]) -> int:
    often = Counter(shape for _, shape in named)
    flat = [shape for shapes in positions for shape in shapes]
    return sum(shape is None or often[shape] > 1 for shape in flat)


# --- by shape -----------------------------------------------------------------------------------


def _by_shape(positions: Positions, named: Sequence[Named]) -> tuple[tuple[str, ...], ...] | None:
    """Names for positions whose shapes occur once, if all do."""
    often = Counter(shape for _, shape in named)
    wanted = Counter(shape for shapes in positions for shape in shapes)
    if any(wanted[shape] != 1 or often[shape] != 1 for shape in wanted if shape is not None):
        return None
    if None in wanted:
        return None
    names = {shape: name for name, shape in named}
    return tuple(tuple(names[s] for s in shapes if s is not None) for shapes in positions)


# --- what is wrong ------------------------------------------------------------------------------


def _counts(positions: Positions, named: Sequence[Named]) -> str:
    return f"the optimizer has {sum(map(len, positions))} parameters and the file {len(named)}"


def _first_mismatch(positions: Positions, named: Sequence[Named]) -> str:
    """Where dealing out comes to an end, at the latest."""
    layers = list(_layers(positions, named))
    index = next((i for i, layer in enumerate(layers) if not layer), len(layers)) - 1
    state = max(layers[index], key=sum)
    if index >= len(named):
        return f"; all of the file fit, and then {_waiting(positions, state)}"
    name, shape = named[index]
    return f"; '{name}' {list(shape)} comes where {_waiting(positions, state)}"


def _waiting(positions: Positions, state: _State) -> str:
    """The parameters that are next, with their positions in the whole optimizer."""
    before, found = 0, []
    for shapes, done in zip(positions, state, strict=True):
        if done < len(shapes):
            shape = shapes[done]
            of = "no state" if shape is None else f"moments of {list(shape)}"
            found.append(f"position {before + done} has {of}")
        before += len(shapes)
    return " and ".join(found) or "all positions have their names"


def _no_way(positions: Positions, named: Sequence[Named]) -> str:
    wanted = Counter(shape for shapes in positions for shape in shapes if shape is not None)
    there = Counter(shape for _, shape in named)
    lacking = wanted - there
    if lacking:
        shape = next(iter(lacking))
        why = f"no order of them fits: {lacking[shape]} more of {list(shape)} would be needed"
    else:
        why = "several other orders would fit, since shapes occur more than once"
    mismatch = _first_mismatch(positions, named)
    return f"{_counts(positions, named)}{mismatch}; {why}"


def _two_ways(
    positions: Positions,
    first: tuple[tuple[str, ...], ...],
    last: tuple[tuple[str, ...], ...],
) -> str:
    pairs = [
        (group, one, other)
        for group, (names, others) in enumerate(zip(first, last, strict=True))
        for one, other in zip(names, others, strict=True)
    ]
    position, (group, one, other) = next(
        (i, pair) for i, pair in enumerate(pairs) if pair[1] != pair[2]
    )
    return (
        f"position {position}, in group {group}, could be '{one}' or '{other}': their shapes are "
        "the same; save the optimizer with names: AdamW(model.named_parameters())"
    )


def _unordered(positions: Positions, named: Sequence[Named]) -> str:
    wanted = Counter(shape for shapes in positions for shape in shapes)
    there = Counter(shape for _, shape in named)
    lacking = [s for s in wanted if s is not None and wanted[s] > there[s]]
    if lacking:
        return (
            f"{_counts(positions, named)}; {wanted[lacking[0]]} of the positions have moments of "
            f"{list(lacking[0])}, and {there[lacking[0]]} of the names"
        )
    unclear = sum(n for shape, n in wanted.items() if shape is None or there[shape] > 1)
    return (
        "its names are sorted, which is not the order of the model, and "
        f"{unclear} of {sum(map(len, positions))} positions share their shape with others; give a "
        "file that keeps the order: torch.save(model.state_dict(), ...)"
    )

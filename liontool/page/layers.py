"""Tensors by layer: rows are layers, columns are what a layer consists of, one grid for a kind.

However many tensors there are, a grid has a bounded number of rows and columns: neighbouring layers
share a row, and what is beyond the last column is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from liontool.inspect.listing import OTHER
from liontool.inspect.statistics import Statistics, TensorStatistics
from liontool.inspect.templates import is_index, template
from liontool.measure.summary import ValueSummary, merged

_MOST_ROWS = 48
_MOST_COLUMNS = 32
_MOST_KINDS = 6
_MOST_STACKS = 6
_MOST_OUTSIDE = 40
_UNSHOWN = "step"
_SIDE_BY_SIDE = 16  # parameters that have positions, not names

POSITIONS = "position"
"""The stack of parameters that have positions and no names."""

Values = list[ValueSummary]


@dataclass(frozen=True)
class Grid:
    """The values of one kind in the layers of one stack.

    Attributes:
        kind: "weight", "exp_avg", ...
        model: Which of several models with the same names, else "".
        stack: What stands before the number of the layer: "transformer.h".
        rows: Layers: "3", or "4-7" where several share a row.
        columns: What stands after the number: "attn.c_attn.weight".
        cells: Values by row and column.
        totals: Values of each row, all columns together.
        hidden: How many columns are left out of `cells`.
    """

    kind: str
    model: str
    stack: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[int, int], ValueSummary]
    totals: tuple[ValueSummary, ...]
    hidden: int

    @property
    def title(self) -> str:
        """Model and stack."""
        return titled(self.model, self.stack)


@dataclass(frozen=True)
class Outside:
    """A parameter that belongs to no layer, with its values by kind."""

    model: str
    name: str
    kinds: Mapping[str, ValueSummary]

    @property
    def title(self) -> str:
        """Model and name."""
        return titled(self.model, self.name)


@dataclass(frozen=True)
class Layers:
    """A checkpoint by layer.

    Attributes:
        kinds: Those that there are grids of, weights first.
        grids: Stack by stack, in each kind by kind.
        outside: Parameters that belong to no layer.
        hidden_stacks: How many stacks are left out.
        hidden_outside: How many parameters are left out of `outside`.
    """

    kinds: tuple[str, ...]
    grids: tuple[Grid, ...]
    outside: tuple[Outside, ...]
    hidden_stacks: int
    hidden_outside: int

    @property
    def models(self) -> tuple[str, ...]:
        """Those that there is anything of; "" alone where names are told apart by themselves."""
        every = [grid.model for grid in self.grids] + [one.model for one in self.outside]
        return tuple(dict.fromkeys(every))

    def rows(self, kind: str, model: str) -> list[tuple[str, ValueSummary]]:
        """Each row of the grids of a kind of a model as a whole: "h 3"."""
        return [
            (f"{grid.stack.rpartition('.')[2]} {row}".strip(), values)
            for grid in self.grids
            if (grid.kind, grid.model) == (kind, model)
            for row, values in zip(grid.rows, grid.totals, strict=True)
        ]


def titled(model: str, name: str) -> str:
    """A name with the model that it is of, where there are several."""
    return f"{model}: {name}" if model else name


@dataclass(frozen=True)
class _Placed:
    stack: str
    layer: int
    part: str


_Stack = tuple[str, str]  # model, and what stands before the number


def by_layer(found: Statistics) -> Layers:
    """Sort the tensors of `found`; those that share another's values count with that one."""
    own = [one for one in found.tensors if one.shares is None and _is_shown(one)]
    kinds = tuple(dict.fromkeys(one.kind for one in sorted(own, key=_weights_first)))[:_MOST_KINDS]
    stacks: dict[_Stack, dict[str, list[tuple[_Placed, ValueSummary]]]] = {}
    outside: dict[tuple[str, str], dict[str, Values]] = {}
    for one in own:
        name = one.parameter or one.name
        if one.kind not in kinds:
            continue
        if (placed := _placed(name)) is not None:
            kind = stacks.setdefault((one.model, placed.stack), {}).setdefault(one.kind, [])
            kind.append((placed, one.values))
        else:
            kinds_of = outside.setdefault((one.model, name), {})
            kinds_of.setdefault(one.kind, []).append(one.values)
    largest = sorted(stacks, key=lambda stack: -sum(map(len, stacks[stack].values())))
    shown = sorted(largest[:_MOST_STACKS], key=lambda stack: kinds[0] not in stacks[stack])
    return Layers(
        kinds,
        tuple(_grids((stack, stacks[stack]) for stack in shown)),
        tuple(
            Outside(model, name, {kind: merged(values) for kind, values in every.items()})
            for (model, name), every in list(outside.items())[:_MOST_OUTSIDE]
        ),
        len(stacks) - len(shown),
        max(0, len(outside) - _MOST_OUTSIDE),
    )


def _is_shown(one: TensorStatistics) -> bool:
    return one.role != OTHER and one.kind != _UNSHOWN and one.values.count > 0


def _weights_first(one: TensorStatistics) -> bool:
    return one.kind != "weight"


def _placed(name: str) -> _Placed | None:
    """The name cut at its first number; None where it has none."""
    parts = name.split(".")
    for index, part in enumerate(parts):
        if is_index(part):
            before, after = ".".join(parts[:index]), ".".join(parts[index + 1 :])
            return (
                _position(int(part))
                if len(parts) == 1
                else _Placed(before, int(part), template(after))
            )
    return None


def _position(number: int) -> _Placed:
    """A parameter without a name, by its position: some of them share a row."""
    column = number % _SIDE_BY_SIDE
    return _Placed(POSITIONS, number - column, f"+{column}")


def _grids(
    stacks: Iterable[tuple[_Stack, Mapping[str, Sequence[tuple[_Placed, ValueSummary]]]]],
) -> Iterator[Grid]:
    for (model, stack), kinds in stacks:
        together = [placed for every in kinds.values() for placed, _ in every]
        layers = sorted({placed.layer for placed in together})
        parts = list(dict.fromkeys(placed.part for placed in together))
        if stack == POSITIONS:
            parts.sort(key=int)
        for kind, every in kinds.items():
            yield _grid(kind, (model, stack), layers, parts, every)


def _grid(
    kind: str,
    stack: _Stack,
    layers: Sequence[int],
    parts: Sequence[str],
    every: Sequence[tuple[_Placed, ValueSummary]],
) -> Grid:
    together = -(-len(layers) // _MOST_ROWS)
    rows = {layer: index // together for index, layer in enumerate(layers)}
    present = {placed.part for placed, _ in every}
    parts = [part for part in parts if part in present]
    columns = {part: index for index, part in enumerate(parts[:_MOST_COLUMNS])}
    cells: dict[tuple[int, int], Values] = {}
    totals: dict[int, Values] = {}
    for placed, values in every:
        row = rows[placed.layer]
        totals.setdefault(row, []).append(values)
        if placed.part in columns:
            cells.setdefault((row, columns[placed.part]), []).append(values)
    return Grid(
        kind,
        *stack,
        tuple(_labels(layers, together)),
        tuple(columns),
        {place: merged(values) for place, values in cells.items()},
        tuple(merged(totals.get(row, ())) for row in range(max(rows.values()) + 1)),
        len(parts) - len(columns),
    )


def _labels(layers: Sequence[int], together: int) -> Iterator[str]:
    for start in range(0, len(layers), together):
        first, last = layers[start], layers[min(start + together, len(layers)) - 1]
        yield str(first) if first == last else f"{first}-{last}"

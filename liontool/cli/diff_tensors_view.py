"""How compared tensors are shown: distances, and names folded where they tell the same."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from liontool import wording
from liontool.inspect.diff import LoneTensor, worst_first
from liontool.inspect.diff_tensors import CLOSE, EQUAL, IDENTICAL, TensorDifference
from liontool.inspect.diff_values import Sums, Values
from liontool.inspect.templates import folded, template

Rows = list[tuple[str, ...]]
Named = TypeVar("Named", LoneTensor, TensorDifference)

_DISTANCES = ("rel. L2", "cosine", "largest")
_NEAR = 1e-4
_SAID = {IDENTICAL: "identical", EQUAL: "equal in value", CLOSE: "within the tolerance"}


def tensor_rows(tensors: Sequence[TensorDifference]) -> tuple[tuple[str, ...], Rows]:
    """The head and a row for each tensor of several elements, the worst first."""
    shown = [one for one in worst_first(tensors) if one.values and not _is_number(one)]
    signs = any(_judged(one) for one in shown)
    nonfinite = any(one.values and one.values.nonfinite_differing for one in shown)
    head = ("tensor", *_DISTANCES, *_more(signs, "signs"), *_more(nonfinite, "non-finite"))
    return head, [_row(one, signs, nonfinite) for one in shown]


def _more(there: bool, word: str) -> tuple[str, ...]:
    return (word,) if there else ()


def _row(one: TensorDifference, signs: bool, nonfinite: bool) -> tuple[str, ...]:
    values = one.values or Values(0, True)
    sums = values.sums or Sums()
    return (
        one.name,
        distance(sums.relative_l2),
        cosine(sums.cosine),
        _largest(values),
        *_more(signs, percent(sums.sign_agreement)),
        *_more(nonfinite, wording.count(values.nonfinite_differing)),
    )


def _largest(values: Values) -> str:
    if values.largest is None or values.index is None:
        return wording.NOTHING
    place = ",".join(map(str, values.index))
    return f"{distance(values.largest)} at {place}" if place else distance(values.largest)


def scalars(tensors: Sequence[TensorDifference]) -> Rows:
    """Numbers that lie in tensors, a `step` for one: those that changed alike in one line."""
    alike: dict[tuple[str, str], list[str]] = {}
    for one in tensors:
        if one.values and _is_number(one):
            pair = wording.value(one.values.a), wording.value(one.values.b)
            alike.setdefault(pair, []).append(one.name)
    return [(fold.pattern, *pair) for pair, names in alike.items() for fold in folded(names)]


def _is_number(one: TensorDifference) -> bool:
    return one.values is not None and one.values.elements == 1 and one.values.largest is not None


def _judged(one: TensorDifference) -> bool:
    return bool(one.values and one.values.sums and one.values.sums.judged)


def identical(tensors: Sequence[TensorDifference]) -> dict[str, str]:
    """The names of those that are the same, by how much so, folded."""
    names: dict[str, list[str]] = {}
    for one in tensors:
        if one.verdict in _SAID:
            names.setdefault(_SAID[one.verdict], []).append(one.name)
    return {
        word: f"{wording.count(len(same), 'tensor')}: {_listed(same)}"
        for word, same in names.items()
    }


def _listed(names: Sequence[str], most: int = 12) -> str:
    folds = folded(names)
    patterns = [fold.pattern for fold in folds[:most]]
    return ", ".join([*patterns, "..."] if len(folds) > most else patterns)


def stat_lines(tensors: Sequence[TensorDifference]) -> tuple[tuple[str, ...], Rows]:
    """The head and a row for each template: how many differ, and how far they do together."""
    rows = [(pattern, *_stat(same)) for pattern, same in by_template(tensors)]
    return ("tensors", "differ", *_DISTANCES, "signs"), rows


def by_template(tensors: Iterable[Named]) -> Iterator[tuple[str, list[Named]]]:
    """Tensors whose names differ in numbers alone, with the pattern of the names."""
    found: dict[str, list[Named]] = {}
    for one in tensors:
        found.setdefault(template(one.name), []).append(one)
    for same in found.values():
        yield folded(one.name for one in same)[0].pattern, same


def _stat(tensors: Iterable[TensorDifference]) -> tuple[str, ...]:
    every = list(tensors)
    values = [one.values for one in every if one.values is not None and one.differs]
    total = Sums()
    for one in values:
        total += one.sums or Sums()
    largest = max((one.largest or 0.0 for one in values), default=None)
    shown = (distance(total.relative_l2), cosine(total.cosine), distance(largest))
    return (
        f"{len(values):,} of {len(every):,}",
        *(shown if values else (wording.NOTHING,) * 3),
        percent(total.sign_agreement),
    )


def distance(value: float | None) -> str:
    """Three digits."""
    return wording.NOTHING if value is None else f"{value:.3g}"


def cosine(value: float | None) -> str:
    """Four digits, of what is missing from 1 where that is little."""
    if value is None:
        return wording.NOTHING
    return f"1 - {1 - value:.2g}" if 0 < 1 - value < _NEAR else f"{value:.4f}"


def percent(value: float | None) -> str:
    """ "99.98 %": what is missing from 100 matters."""
    return wording.NOTHING if value is None else f"{100 * value:.2f} %"

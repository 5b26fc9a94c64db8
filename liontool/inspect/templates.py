"""Names that differ in numbers alone, as one line: `layers.{0-47}.attn.weight`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_MOST_RANGES = 4
_MOST_DIGITS = 9


@dataclass(frozen=True)
class Fold:
    """Names of one template.

    Attributes:
        template: The name with `{}` for every part that is a number.
        pattern: The same with the numbers that occur: `layers.{0-11,13}.weight`.
        names: All of them, in the order they came in.
    """

    template: str
    pattern: str
    names: tuple[str, ...]


def template(name: str) -> str:
    """The name with `{}` for every part between dots that is a number."""
    return ".".join("{}" if is_index(part) else part for part in name.split("."))


def is_index(part: str) -> bool:
    """Whether a part of a name is a number as a program writes it: "03" is none."""
    if not part.isascii() or not part.isdecimal() or len(part) > _MOST_DIGITS:
        return False
    return part == "0" or part[0] != "0"


def folded(names: Iterable[str]) -> tuple[Fold, ...]:
    """Names by template, in the order of their first ones."""
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(template(name), []).append(name)
    return tuple(Fold(key, _pattern(same), tuple(same)) for key, same in found.items())


def _pattern(names: Sequence[str]) -> str:
    """Numbers that all names share stand as they are, the others as ranges."""
    columns = zip(*(name.split(".") for name in names), strict=True)
    return ".".join(_part(column) for column in columns)


def _part(words: Sequence[str]) -> str:
    different = dict.fromkeys(words)
    return words[0] if len(different) == 1 else number_ranges(map(int, different))


def number_ranges(numbers: Iterable[int]) -> str:
    """ "{0-11,13}"; one number alone stands as it is."""
    found = sorted(set(numbers))
    return str(found[0]) if len(found) == 1 else "{" + _ranges(found) + "}"


def _ranges(numbers: Sequence[int]) -> str:
    """ "0-11,13"; what is beyond a few ranges is shown as an ellipsis."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(a) if a == b else f"{a}-{b}" for a, b in runs[:_MOST_RANGES]]
    if len(runs) > _MOST_RANGES:
        shown[-1] = f"...,{runs[-1][1]}"
    return ",".join(shown)

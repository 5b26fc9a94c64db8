"""The words of an edit as data, and the grammar that makes them of text."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from liontool.edit.literals import factor, literal


@dataclass(frozen=True)
class Word:
    """One edit; the classes below say which.

    Attributes:
        text: As the user wrote it, for messages and for the record in the file.
    """

    text: str


@dataclass(frozen=True)
class Set(Word):
    """`lr=3e-5`, `betas=0.95,0.98`, `groups.1.weight_decay=0`: a hyperparameter gets a value.

    Attributes:
        name: The key in the group.
        value: What it gets.
        group: Index of the group; None for all groups.
    """

    name: str
    value: Any
    group: int | None = None


@dataclass(frozen=True)
class Scale(Word):
    """`lr=x0.5`: a hyperparameter is multiplied.

    Attributes:
        name: The key in the group.
        factor: By what.
        group: Index of the group; None for all groups.
    """

    name: str
    factor: float
    group: int | None = None


@dataclass(frozen=True)
class State(Word):
    """`exp_avg:bf16`, `exp_avg:zeros@head.*`: state tensors are cast or emptied.

    Attributes:
        name: Which state: "exp_avg".
        to: "zeros", or torch's name of a dtype: "bfloat16".
        glob: For which parameters, by name.
    """

    name: str
    to: str
    glob: str = "*"


@dataclass(frozen=True)
class Rename(Word):
    """`rename:OLD=NEW`: parameters get other names, wherever they have one.

    Attributes:
        old: A name, a prefix that ends at a dot, or a pattern with `*`.
        new: What takes its place, with as many `*`.
    """

    old: str
    new: str


@dataclass(frozen=True)
class Drop(Word):
    """`drop:GLOB`: tensors and parameters go."""

    glob: str


@dataclass(frozen=True)
class Keep(Word):
    """`keep:GLOB`: all other weights and parameters go."""

    glob: str


@dataclass(frozen=True)
class Metadata(Word):
    """`meta.key=value`: a string in the header of a safetensors file; an empty one goes."""

    key: str
    value: str


@dataclass(frozen=True)
class Names(Word):
    """`names:MODEL_FILE`: parameters get the names that the weights in a file have."""

    file: str


@dataclass(frozen=True)
class Strip(Word):
    """`strip`: the optimizer's state goes; what a resume has to know stays."""


def parse(words: Sequence[str]) -> tuple[Word, ...]:
    """The edits that `words` stand for, in order.

    Raises:
        ValueError: A word is none of the grammar's; the message names all that are not.
    """
    if not words:
        raise ValueError(f"no edit is given; {USAGE}")
    found: list[Word] = []
    faults: list[str] = []
    for text in words:
        try:
            found.append(_word(text))
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise ValueError("; ".join(faults))
    return tuple(found)


USAGE = (
    "an edit is KEY=VALUE, KEY=xFACTOR, groups.N.KEY=VALUE, STATE:bf16, STATE:zeros, "
    "rename:OLD=NEW, drop:GLOB, keep:GLOB, meta.KEY=VALUE, names:MODEL_FILE or strip; "
    "for example lr=3e-5"
)

ZEROS = "zeros"
_CASTS = {
    "bf16": "bfloat16", "bfloat16": "bfloat16",
    "fp16": "float16", "float16": "float16",
    "fp32": "float32", "float32": "float32",
    ZEROS: ZEROS,
}  # fmt: skip
_HYPERPARAMETER = re.compile(r"(?:groups\.(\d{1,9})\.)?([A-Za-z_]\w*)=(.*)", re.DOTALL)
_STATE = re.compile(r"([A-Za-z_][\w:]*):([\w]+)(?:@(.*))?", re.DOTALL)


def _word(text: str) -> Word:
    for prefix, read in _READERS.items():
        if text.startswith(prefix):
            return read(text, text.removeprefix(prefix))
    if text == "strip":
        return Strip(text)
    found = _HYPERPARAMETER.fullmatch(text)
    if found is not None:
        return _hyperparameter(text, *found.groups())
    found = _STATE.fullmatch(text)
    if found is not None:
        return _state(text, *found.groups())
    raise ValueError(f"'{text}' is no edit; {USAGE}")


def _hyperparameter(text: str, index: str | None, name: str, value: str) -> Set | Scale:
    group = None if index is None else int(index)
    try:
        by = factor(value)
        return (
            Set(text, name, literal(value), group) if by is None else Scale(text, name, by, group)
        )
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from None


def _state(text: str, name: str, to: str, glob: str | None) -> State:
    if to not in _CASTS:
        raise ValueError(f"'{text}': state becomes one of {', '.join(_CASTS)}, not '{to}'")
    return State(text, name, _CASTS[to], "*" if glob is None else _pattern(text, glob))


def _names(text: str, file: str) -> Names:
    if not file:
        raise ValueError(f"'{text}' lacks the file that has the names, after the colon")
    return Names(text, file)


def _rename(text: str, rest: str) -> Rename:
    old, equals, new = rest.partition("=")
    if not equals or not old or old == new:
        raise ValueError(f"'{text}' must be rename:OLD=NEW with two different names")
    if old.count("*") != new.count("*"):
        raise ValueError(f"'{text}' must have as many * on the right as on the left")
    return Rename(text, old, new)


def _drop(text: str, glob: str) -> Drop:
    return Drop(text, _pattern(text, glob))


def _keep(text: str, glob: str) -> Keep:
    return Keep(text, _pattern(text, glob))


def _pattern(text: str, glob: str) -> str:
    if not glob:
        raise ValueError(f"'{text}' lacks the name, or the pattern of names, at its end")
    return glob


def _metadata(text: str, rest: str) -> Metadata:
    key, equals, value = rest.partition("=")
    if not equals or not key:
        raise ValueError(f"'{text}' must be meta.KEY=VALUE")
    return Metadata(text, key, value)


_READERS: Mapping[str, Callable[[str, str], Word]] = {
    "rename:": _rename,
    "drop:": _drop,
    "keep:": _keep,
    "meta.": _metadata,
    "names:": _names,
}

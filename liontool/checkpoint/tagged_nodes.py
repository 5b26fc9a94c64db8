"""What a tagged tree is made of: its limits, its leaves, and the nodes of dicts."""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from liontool.checkpoint.unkept import dotted
from liontool.errors import FormatError

Json: TypeAlias = Any
KeyPath: TypeAlias = tuple[Any, ...]

MAX_DEPTH = 64
"""Containers in containers."""
MAX_VALUES = 1_000_000
"""Values in one state; more belong into a tensor."""

SAME = frozenset({str, bool, type(None)})
"""Types whose values are their own nodes."""
# Equal ones may be different objects, and a live one is only known by its place.
UNHASHED = frozenset({"$tensor", "$live"})
"""Leaves that can be no keys."""

FACTORIES: Mapping[str, Callable[[], Any] | None] = {
    "none": None, "int": int, "float": float, "bool": bool, "str": str, "bytes": bytes,
    "list": list, "dict": dict, "set": set, "tuple": tuple,
    "OrderedDict": OrderedDict, "Counter": Counter, "deque": deque,
}  # fmt: skip
"""What a defaultdict may be made with."""


class Leaves(Protocol):
    """What a live state and a file on disk do differently."""

    def encode(self, value: object, path: KeyPath) -> Json | None:
        """The node of a value that is in no table here; None where it is not known either."""

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        """The value of a node `{kind: payload}`; `unknown` is what to raise for other kinds."""


def malformed(path: KeyPath, what: str) -> FormatError:
    """The error for a node that `encode` cannot have written."""
    return FormatError(f"{dotted(path)}: {what}; the file was damaged or not written by liontool")


def unknown(kind: str, path: KeyPath) -> FormatError:
    """The error for a kind that nobody knows."""
    return FormatError(
        f"{dotted(path)}: holds a value of the unknown kind '{dotted((kind,))}'; "
        "a newer liontool may have written it: pip install -U liontool"
    )


def object_node(pairs: Sequence[Sequence[Json]]) -> Json:
    """The node of a dict, given as nodes of its keys and values; text is its own node."""
    if all(type(key) is str for key, _ in pairs):
        made: dict[str, Json] = {key: node for key, node in pairs}  # noqa: C416 - lists are no items
        if not looks_tagged(made):
            return made
    return {"$dict": [list(pair) for pair in pairs]}


def looks_tagged(mapping: Mapping[Any, Any]) -> bool:
    """Whether it has one key, and that begins with `$`."""
    if len(mapping) != 1:
        return False
    (key,) = mapping
    return type(key) is str and key.startswith("$")

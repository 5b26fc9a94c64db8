"""JSON files of checkpoint folders, such as trainer_state.json or the index of shards."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from liontool.checkpoint.copying import Literal, Piece
from liontool.checkpoint.document import Edit, Key, TensorRef, Value
from liontool.checkpoint.formats.mapping_edit import applied
from liontool.errors import FormatError, LimitError

MAX_BYTES = 256 << 20
"""Size of a file. A trainer_state.json that logged a million steps has about 150 MB."""


class JsonDocument:
    """A JSON file as a Document."""

    container = "json"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        self.facts: Mapping[str, str] = {}
        self.overhead = path.stat().st_size
        self.tree: Value = _parsed(path)

    def rewritten(
        self,
        edits: Sequence[Edit],
        *,
        scan: frozenset[TensorRef],
        provenance: Mapping[str, Any] | None,
    ) -> list[Piece]:
        """The pieces of the same file with `edits` of its objects; no place for the provenance."""
        tree = _parsed(self.path)
        by_object: dict[tuple[Key, ...], list[Edit]] = {}
        for edit in edits:
            by_object.setdefault(edit.place.path[:-1], []).append(edit)
        objects = [(_object_at(tree, path), changes) for path, changes in by_object.items()]
        for found, changes in objects:
            after = applied(found, changes)
            found.clear()
            found.update(after)
        return [Literal(json.dumps(tree, indent=2).encode() + b"\n")]


def _object_at(tree: Value, path: tuple[Key, ...]) -> dict[str, Any]:
    for key in path:
        tree = tree[key]
    if not isinstance(tree, dict):
        raise ValueError(f"there is no object at '{'.'.join(map(str, path))}'")
    return tree


def repeated_names(path: Path) -> dict[str, int]:
    """Names that some object of a JSON file has more than once, with how often it has them.

    Raises:
        FormatError: The file is no JSON.
    """
    found: dict[str, int] = {}

    def look(pairs: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in pairs)
        if len(names) < len(pairs):
            found.update((name, count) for name, count in names.items() if count > 1)

    _parsed(path, look)
    return found


def _parsed(path: Path, hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Value:
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise LimitError(f"{path}: has {size} bytes; JSON is read up to {MAX_BYTES} bytes")
    try:
        return json.loads(path.read_bytes(), object_pairs_hook=hook)
    except RecursionError:
        raise LimitError(f"{path}: its JSON is nested too deeply") from None
    except ValueError as error:  # also bytes that are not text, and numbers of too many digits
        raise FormatError(f"{path}: is not valid JSON: {error}") from None

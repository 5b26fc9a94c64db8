"""Edits of a tagged tree at the paths of its decoded values.

What no edit names stays the very same object, so that it is written byte for byte as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from liontool.checkpoint.document import Delete, Edit, Insert, Rename, Value
from liontool.checkpoint.tagged_tree import Json, KeyPath, Leaves, decode, encode, object_node
from liontool.checkpoint.unkept import dotted

_Entry = tuple[Any, Json]


@dataclass
class _Branch:
    """The edits at one place and below it."""

    edit: Edit | None = None
    inserts: list[Insert] = field(default_factory=list)
    below: dict[Hashable, _Branch] = field(default_factory=dict)


def edited(tree: Json, edits: Sequence[Edit], leaves: Leaves) -> Json:
    """The tree after `edits`, whose Places are those before the first of them.

    Args:
        tree: A tree that decodes; it is left alone.
        edits: Their paths lead through mappings by key, through sequences by index.
        leaves: Encodes new values.

    Raises:
        ValueError: There is nothing at a Place, or two entries would have one key.
    """
    root = _Branch()
    for edit in edits:
        _plant(root, edit)
    return _Editing(leaves).node(tree, root, ())


def _plant(branch: _Branch, edit: Edit) -> None:
    *parents, last = edit.place.path
    for key in parents:
        branch = branch.below.setdefault(key, _Branch())
    if isinstance(edit, Insert):
        branch.inserts.append(edit)
    else:
        branch.below.setdefault(last, _Branch()).edit = edit


class _Editing:
    """One call of `edited`."""

    def __init__(self, leaves: Leaves) -> None:
        self._leaves = leaves

    def node(self, node: Json, branch: _Branch, path: KeyPath) -> Json:
        entries, rebuilt = self._opened(node, path)
        left = dict(branch.below)
        made: list[_Entry] = []
        for key, item in entries:
            below = left.pop(key, None)
            made += [(key, item)] if below is None else self._entry(key, item, below, path)
        if left:
            raise ValueError(f"there is nothing at '{dotted((*path, next(iter(left))))}'")
        for insert in branch.inserts:
            key = insert.place.path[-1]
            made.append((key, self._encoded(insert.value, (*path, key))))
        return rebuilt(made)

    def _entry(self, key: Any, item: Json, branch: _Branch, path: KeyPath) -> list[_Entry]:
        edit, here = branch.edit, (*path, key)
        if isinstance(edit, Delete):
            return []
        if branch.below or branch.inserts:
            item = self.node(item, branch, here)
        if isinstance(edit, Rename):
            return [(edit.key, item)]
        return [(key, item if edit is None else self._encoded(edit.value, here))]

    def _encoded(self, value: Value, path: KeyPath) -> Json:
        return encode(value, self._leaves, path)

    def _opened(
        self, node: Json, path: KeyPath
    ) -> tuple[list[_Entry], Callable[[list[_Entry]], Json]]:
        """The entries of a container, and how to make it again of others."""
        if isinstance(node, list):
            return list(enumerate(node)), _items
        if isinstance(node, dict):
            kind = next(iter(node), "")
            if len(node) != 1 or not kind.startswith("$"):
                return list(node.items()), self._mapping
            payload = node[kind]
            if kind == "$tuple":
                return list(enumerate(payload)), lambda made: {kind: _items(made)}
            if kind == "$deque":
                longest, items = payload
                return list(enumerate(items)), lambda made: {kind: [longest, _items(made)]}
            if kind == "$dict":
                return self._entries(payload), self._mapping
            if kind in ("$ordered", "$counter"):
                return self._entries(payload), lambda made: {kind: self._pairs(made)}
            if kind == "$state_dict":
                pairs, metadata = payload
                return self._entries(pairs), lambda made: {kind: [self._pairs(made), metadata]}
            if kind == "$defaultdict":
                factory, pairs = payload
                return self._entries(pairs), lambda made: {kind: [factory, self._pairs(made)]}
        raise ValueError(f"there is no mapping or sequence at '{dotted(path)}'")

    def _entries(self, pairs: list[list[Json]]) -> list[_Entry]:
        return [(self._key(key), item) for key, item in pairs]

    def _key(self, node: Json) -> Any:
        return node if type(node) is str else decode(node, self._leaves)

    def _key_node(self, key: object) -> Json:
        return encode(key, self._leaves)

    def _mapping(self, made: list[_Entry]) -> Json:
        return object_node(_unique(made).items(), self._key_node)

    def _pairs(self, made: list[_Entry]) -> list[list[Json]]:
        return [[self._key_node(key), item] for key, item in _unique(made).items()]


def _unique(made: list[_Entry]) -> Mapping[Any, Json]:
    unique = dict(made)
    if len(unique) != len(made):
        raise ValueError("two entries would have one key")
    return unique


def _items(made: list[_Entry]) -> list[Json]:
    return [item for _, item in made]

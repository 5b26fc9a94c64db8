"""Edits of a tagged tree at the paths of its decoded values.

What no edit names stays the very same object, so that it is written byte for byte as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

from liontool.checkpoint.document import Delete, Edit, Insert, Rename, Value
from liontool.checkpoint.tagged_nodes import Json, KeyPath, Leaves, looks_tagged, object_node
from liontool.checkpoint.tagged_tree import decode, encode
from liontool.checkpoint.unkept import dotted


class _Entry(NamedTuple):
    """An entry of a container: its decoded key or index, the node of the key, and its own."""

    key: Any
    key_node: Json
    node: Json


_Rebuilt: TypeAlias = Callable[[list[_Entry]], Json]


@dataclass
class _Branch:
    """The edits at one place and below it."""

    edit: Edit | None = None
    inserts: list[Insert] = field(default_factory=list)
    below: dict[Any, _Branch] = field(default_factory=dict)


def edited(tree: Json, edits: Sequence[Edit], leaves: Leaves) -> Json:
    """The tree after `edits`, whose Places are those before the first of them.

    Args:
        tree: A tree that decodes; it is left alone.
        edits: Their paths lead through mappings by key, through sequences by index.
        leaves: Decodes keys, and encodes new values.

    Raises:
        ValueError: There is nothing at a Place, or two entries would have one key.
        StateTypeError: A new value is of a type that no tree can hold.
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
        """A container after the edits of its entries and below them."""
        if not branch.below and not branch.inserts:
            return node
        entries, rebuilt = self._opened(node, path)
        left = dict(branch.below)
        made: list[_Entry] = []
        for entry in entries:
            below = left.pop(entry.key, None)
            made += [entry] if below is None else self._edited(entry, below, path)
        if left:
            raise ValueError(f"there is nothing at '{dotted((*path, next(iter(left))))}'")
        made += (self._new(edit.place.path[-1], edit.value, path) for edit in branch.inserts)
        return rebuilt(made)

    def _edited(self, entry: _Entry, branch: _Branch, path: KeyPath) -> list[_Entry]:
        """What has become of one entry; nothing, where it was deleted."""
        edit = branch.edit
        if isinstance(edit, Delete):
            return []
        entry = entry._replace(node=self.node(entry.node, branch, (*path, entry.key)))
        if isinstance(edit, Rename):
            return [_Entry(edit.key, self._key_node(edit.key), entry.node)]
        if edit is None:
            return [entry]
        return [entry._replace(node=self._encoded(edit.value, (*path, entry.key)))]

    def _new(self, key: Any, value: Value, path: KeyPath) -> _Entry:
        return _Entry(key, self._key_node(key), self._encoded(value, (*path, key)))

    def _encoded(self, value: Value, path: KeyPath) -> Json:
        return encode(value, self._leaves, path)

    def _opened(self, node: Json, path: KeyPath) -> tuple[list[_Entry], _Rebuilt]:
        """The entries of a container, and how to make it again of others."""
        if isinstance(node, list):
            return _numbered(node), _items
        if isinstance(node, dict):
            if not looks_tagged(node):
                return [_Entry(key, key, item) for key, item in node.items()], _mapping
            ((kind, payload),) = node.items()
            if kind == "$tuple":
                return _numbered(payload), lambda made: {kind: _items(made)}
            if kind == "$deque":
                longest, items = payload
                return _numbered(items), lambda made: {kind: [longest, _items(made)]}
            if kind == "$dict":
                return self._entries(payload), _mapping
            if kind in ("$ordered", "$counter"):
                return self._entries(payload), lambda made: {kind: _pairs(made)}
            if kind == "$state_dict":
                pairs, metadata = payload
                return self._entries(pairs), lambda made: {kind: [_pairs(made), metadata]}
            if kind == "$defaultdict":
                factory, pairs = payload
                return self._entries(pairs), lambda made: {kind: [factory, _pairs(made)]}
        raise ValueError(f"there is no mapping or sequence at '{dotted(path)}'")

    def _entries(self, pairs: list[list[Json]]) -> list[_Entry]:
        return [_Entry(self._key(key), key, item) for key, item in pairs]

    def _key(self, node: Json) -> Any:
        return node if type(node) is str else decode(node, self._leaves)

    def _key_node(self, key: object) -> Json:
        return encode(key, self._leaves)


def _numbered(items: list[Json]) -> list[_Entry]:
    return [_Entry(i, i, item) for i, item in enumerate(items)]


def _items(made: list[_Entry]) -> list[Json]:
    return [entry.node for entry in made]


def _mapping(made: list[_Entry]) -> Json:
    return object_node(_pairs(made))


def _pairs(made: list[_Entry]) -> list[list[Json]]:
    if len({entry.key for entry in made}) != len(made):
        raise ValueError("two entries would have one key")
    return [[entry.key_node, entry.node] for entry in made]

"""Edits on the nodes of a pickle: made in the graph for as long as it is written, then undone.

An edit changes one slot of one container. Aliases stay aliases: whoever reaches the container by
another path sees the change too, as it would be in the running program. To copy the graph would
take as much memory again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from liontool.checkpoint.document import (
    Delete,
    Edit,
    Insert,
    Place,
    Rename,
    Replace,
    TensorRef,
    Value,
)
from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_content import (
    Holder,
    Slot,
    class_of,
    entries,
    is_mapping,
    items,
    kind_of,
    state_of,
)
from liontool.checkpoint.formats.pickle_encode import Encoder
from liontool.checkpoint.formats.pickle_nodes import (
    Call,
    Change,
    Composite,
    List,
    Node,
    Part,
    Tuple,
    resolve,
)

_Saved: TypeAlias = tuple[Node | Change, str, Any]
_ITEM_CODES = frozenset({op.SETITEM, op.SETITEMS})


class Editor:
    """Collects edits of one graph, then makes them.

    Args:
        root: The graph.
        key_of: The key that a node is in a dict.
        encoder: Makes nodes of new values.
    """

    def __init__(self, root: Node, key_of: Callable[[Node], Any], encoder: Encoder) -> None:
        self._root = root
        self._key_of = key_of
        self._encoder = encoder
        self._indices: dict[Node, dict[Any, list[Slot]]] = {}
        self._done: dict[tuple[Holder | Node, Any], tuple[Place, Any]] = {}
        self._edits = _Edits()

    def add(self, edit: Edit) -> None:
        """Note down one edit."""
        place = edit.place
        if not place.path:
            raise ValueError("the whole of a file cannot be edited away")
        container, key = self._container(place), place.path[-1]
        slots = self._index(container).get(key)
        if isinstance(edit, Insert):
            self._insert(edit, container, slots)
        elif not slots:
            raise ValueError(f"there is nothing at '{place}'")
        elif isinstance(edit, Replace):
            self._replace(edit, slots[-1])
        elif isinstance(edit, Rename):
            self._rename(edit, slots)
        else:
            self._delete(edit, slots)

    def apply(self) -> Callable[[], None]:
        """Make all edits.

        Returns:
            What undoes them.
        """
        saved = self._edits.apply()

        def undo() -> None:
            for holder, name, value in reversed(saved):
                setattr(holder, name, value)

        return undo

    def _container(self, place: Place) -> Node:
        node = resolve(self._root)
        for key in place.path[:-1]:
            slots = self._index(node).get(key)
            if slots:
                node = resolve(slots[-1].value)
            elif isinstance(node, Call) and key == class_of(node):
                node = state_of(node) or node
            else:
                raise ValueError(f"there is no '{key}' on the way to '{place}'")
        return node

    def _index(self, node: Node) -> dict[Any, list[Slot]]:
        """The slots of a container by key or position."""
        if node not in self._indices:
            found: dict[Any, list[Slot]] = {}
            for key, slot in self._slots(node):
                found.setdefault(key, []).append(slot)
            self._indices[node] = found
        return self._indices[node]

    def _slots(self, node: Node) -> Iterator[tuple[Any, Slot]]:
        if not isinstance(node, Composite):
            return
        keyed = [(self._key_of(slot.key), slot) for slot in entries(node) if slot.key is not None]
        if is_mapping(node) or (keyed and not kind_of(node)):
            yield from keyed
        else:
            yield from enumerate(items(node))

    def _insert(self, edit: Insert, container: Node, slots: list[Slot] | None) -> None:
        key = edit.place.path[-1]
        if slots or not is_mapping(container):
            raise ValueError(f"'{edit.place}' cannot be added: it is there, or not in a mapping")
        if self._is_new((container, ("new", key)), edit.place, edit.value):
            nodes = [self._encoder.node(key), self._encoder.node(edit.value)]
            self._edits.added.setdefault(container, []).extend(nodes)

    def _replace(self, edit: Replace, slot: Slot) -> None:
        if self._is_new((slot.holder, slot.position), edit.place, edit.value):
            node = self._encoder.node(edit.value)
            self._edits.replaced.setdefault(slot.holder, {})[slot.position] = node

    def _rename(self, edit: Rename, slots: list[Slot]) -> None:
        for slot in slots:
            if slot.key is None:
                raise ValueError(f"'{edit.place}' has no key that could be renamed")
            key = slot.position - 1
            if self._is_new((slot.holder, key), edit.place, edit.key):
                node = self._encoder.node(edit.key)
                self._edits.replaced.setdefault(slot.holder, {})[key] = node

    def _delete(self, edit: Delete, slots: list[Slot]) -> None:
        for slot in slots:
            if slot.key is not None and isinstance(slot.owner, (List, Tuple)):
                raise ValueError(f"'{edit.place}' is a pair as Python 2 writes it, and must stay")
            if self._is_new((slot.holder, slot.position), edit.place, _GONE):
                gone = {slot.position} if slot.key is None else {slot.position - 1, slot.position}
                self._edits.removed.setdefault(slot.holder, set()).update(gone)

    def _is_new(self, what: tuple[Holder | Node, Any], place: Place, value: Any) -> bool:
        """Whether this slot was not edited yet; the same edit may come by several paths."""
        if what not in self._done:
            self._done[what] = (place, value)
            return True
        other, old = self._done[what]
        if old is value or (_is_plain(old) and type(old) is type(value) and old == value):
            return False
        raise ValueError(f"'{other}' and '{place}' are one place, and their edits contradict")


_GONE = object()


def _is_plain(value: Value) -> bool:
    return not isinstance(value, TensorRef)


class _Edits:
    """What to change, by the holder, or (`added`) by the mapping."""

    def __init__(self) -> None:
        self.removed: dict[Holder, set[int]] = {}
        self.replaced: dict[Holder, dict[int, Node]] = {}
        self.added: dict[Node, list[Node]] = {}

    def apply(self) -> list[_Saved]:
        """Change the graph.

        Returns:
            What was there before, in the order to put it back.
        """
        saved: list[_Saved] = []
        for holder in self.removed.keys() | self.replaced.keys():
            saved += _set(holder, "items", self._items(holder))
            if isinstance(holder, Tuple):
                saved += _set(holder, "op", _tuple_code(holder.op, len(holder.items)))
        for node, new in self.added.items():
            saved += _set(node, "changes", _with_entries(node.changes or [], new))
        return saved

    def _items(self, holder: Holder) -> Sequence[Part]:
        """A holder's items after the edits."""
        removed = self.removed.get(holder, ())
        replaced = self.replaced.get(holder, {})
        return [
            replaced.get(index, part)
            for index, part in enumerate(holder.items)
            if index not in removed
        ]


def _set(holder: Node | Change, name: str, value: Any) -> list[_Saved]:
    saved = (holder, name, getattr(holder, name))
    setattr(holder, name, value)
    return [saved]


def _with_entries(changes: list[Change], new: list[Node]) -> list[Change]:
    """Changes with new entries of a mapping behind those that it has."""
    last = max((i for i, change in enumerate(changes) if change.op in _ITEM_CODES), default=-1)
    entries = [Change(op.SETITEM, new[i : i + 2]) for i in range(0, len(new), 2)]
    return [*changes[: last + 1], *entries, *changes[last + 1 :]]


def _tuple_code(code: int, count: int) -> int:
    """The opcode for a tuple that may have lost items."""
    if code in (op.TUPLE1, op.TUPLE2, op.TUPLE3):
        return (op.EMPTY_TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3)[count]
    return code

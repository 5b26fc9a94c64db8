"""Edits on the nodes of a pickle: a copy with some entries changed that shares whatever stays.

An edit changes one slot of one container. Aliases stay aliases: whoever reaches the container by
another path sees the change too, as it would be in the running program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from liontool.checkpoint.document import Delete, Edit, Insert, Place, Replace, TensorRef, Value
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
    Atom,
    Call,
    Change,
    Composite,
    Drop,
    List,
    Node,
    Part,
    Ref,
    Tuple,
    depth_of,
    resolve,
)

_ITEM_CODES = frozenset({op.SETITEM, op.SETITEMS})


class Editor:
    """Collects edits of one graph, then copies it.

    Args:
        root: The graph.
        key_of: The key that a node is in a dict.
        encoder: Makes nodes of new values.
    """

    def __init__(self, root: Node, key_of: Callable[[Node], Any], encoder: Encoder) -> None:
        self._root = root
        self._key_of = key_of
        self._encoder = encoder
        self._indices: dict[int, dict[Any, list[Slot]]] = {}
        self._done: dict[tuple[int, Any], tuple[Place, Any]] = {}
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
        else:
            self._delete(edit, slots)

    def copy(self) -> Node:
        """The graph with all edits."""
        return _Copier(self._edits).run(self._root)

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
        if id(node) not in self._indices:
            found: dict[Any, list[Slot]] = {}
            for key, slot in self._slots(node):
                found.setdefault(key, []).append(slot)
            self._indices[id(node)] = found
        return self._indices[id(node)]

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
        if self._is_new((id(container), ("new", key)), edit.place, edit.value):
            nodes = [self._encoder.node(key), self._encoder.node(edit.value)]
            self._edits.added.setdefault(id(container), []).extend(nodes)

    def _replace(self, edit: Replace, slot: Slot) -> None:
        if self._is_new((id(slot.holder), slot.position), edit.place, edit.value):
            node = self._encoder.node(edit.value)
            self._edits.replaced.setdefault(id(slot.holder), {})[slot.position] = node

    def _delete(self, edit: Delete, slots: list[Slot]) -> None:
        for slot in slots:
            if slot.key is not None and isinstance(slot.owner, (List, Tuple)):
                raise ValueError(f"'{edit.place}' is a pair as Python 2 writes it, and must stay")
            if self._is_new((id(slot.holder), slot.position), edit.place, _GONE):
                gone = {slot.position} if slot.key is None else {slot.position - 1, slot.position}
                self._edits.removed.setdefault(id(slot.holder), set()).update(gone)

    def _is_new(self, what: tuple[int, Any], place: Place, value: Any) -> bool:
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
    """What to change, by identity of the holder, or (`added`) of the mapping."""

    def __init__(self) -> None:
        self.removed: dict[int, set[int]] = {}
        self.replaced: dict[int, dict[int, Node]] = {}
        self.added: dict[int, list[Node]] = {}

    def parts(self, holder: Holder) -> list[Part]:
        """A holder's items after the edits."""
        removed = self.removed.get(id(holder), ())
        replaced = self.replaced.get(id(holder), {})
        return [
            replaced.get(index, part)
            for index, part in enumerate(holder.items)
            if index not in removed
        ]


class _Copier:
    """Copies what an edit changes, and whatever contains that; the rest is shared.

    Attributes:
        copies: What stands for each node in the copy; the node itself if nothing in it changes.
        open: Nodes whose contents are being copied.
    """

    def __init__(self, edits: _Edits) -> None:
        self._edits = edits
        self.copies: dict[int, Node] = {}
        self.open: set[int] = set()
        self._changes: dict[int, Change] = {}

    def run(self, root: Node) -> Node:
        todo: list[tuple[Node, bool]] = [(root, False)]
        while todo:
            node, inside_done = todo.pop()
            if inside_done:
                self._close(node)
            elif self._is_leaf(node) or id(node) in self.copies:
                continue
            elif id(node) in self.open:
                self._promise(node)
            else:
                self.open.add(id(node))
                todo.append((node, True))
                todo.extend((child, False) for child in self._children(node))
        return self._mapped(root)

    def _is_leaf(self, node: Node) -> bool:
        if type(node) is Ref:
            return node.changes is None and self._is_leaf(node.target)
        return type(node) is Atom and node.changes is None

    def _children(self, node: Node) -> Iterator[Node]:
        todo: list[Part | Change] = [*(node.changes or ())]
        if isinstance(node, Composite):
            todo.extend(self._edits.parts(node))
        while todo:
            part = todo.pop()
            if isinstance(part, Node):
                yield part
            else:
                todo.extend(self._edits.parts(part))
        yield from self._edits.added.get(id(node), ())
        if isinstance(node, Ref):
            yield node.target  # last, so that `run` takes it first: changes may lead back here

    def _promise(self, node: Node) -> None:
        """Make an empty copy of a node that contains itself; `_close` fills it."""
        target = resolve(node)
        if id(target) not in self.copies:
            self.copies[id(target)] = _blank(target)

    def _close(self, node: Node) -> None:
        self.open.discard(id(node))
        if isinstance(node, Ref):
            target = self._mapped(node.target)
            changes = self._copied_changes(node)
            if target is node.target and changes == node.changes:
                self.copies[id(node)] = node
                return
            self.copies[id(node)] = ref = Ref(target)
            ref.changes = changes
            return
        self._fill(node)

    def _fill(self, node: Node) -> None:
        changes = self._copied_changes(node)
        items: list[Node] = []
        if isinstance(node, Composite):
            parts = self._edits.parts(node)
            items = [self._mapped(part) for part in parts if isinstance(part, Node)]
            same = len(items) == len(node.items) and all(map(_is, items, node.items))
        else:
            same = True
        copy = self.copies.get(id(node))
        if copy is None:
            if same and changes == node.changes:
                self.copies[id(node)] = node
                return
            copy = self.copies[id(node)] = _blank(node)
        copy.changes = changes
        copy.memoized = node.memoized
        if isinstance(copy, Composite):
            copy.op = _tuple_code(copy.op, len(items))
            copy.items = tuple(items)
            copy.depth = depth_of(items)

    def _copied_changes(self, node: Node) -> list[Change] | None:
        """The changes after the edits, the old ones where nothing in them differs."""
        copied = [self._copied_change(change) for change in node.changes or ()]
        kept = [change for change in copied if change.items or isinstance(change, Drop)]
        added = self._edits.added.get(id(node))
        if added:
            last = max((i for i, change in enumerate(kept) if change.op in _ITEM_CODES), default=-1)
            new = [self._mapped(part) for part in added]
            kept[last + 1 : last + 1] = [
                Change(op.SETITEM, new[i : i + 2]) for i in range(0, len(new), 2)
            ]
        return kept or None

    def _copied_change(self, change: Change) -> Change:
        if id(change) not in self._changes:
            items: list[Part] = [self._copied_part(part) for part in self._edits.parts(change)]
            same = len(items) == len(change.items) and all(map(_is, items, change.items))
            self._changes[id(change)] = change if same else _changed(change, items)
        return self._changes[id(change)]

    def _copied_part(self, part: Part) -> Part:
        if isinstance(part, Node):
            return self._mapped(part)
        copied = self._copied_change(part)
        return copied if isinstance(copied, Drop) else part

    def _mapped(self, node: Node) -> Node:
        """What stands for `node` in the copy."""
        if self._is_leaf(node):
            return node
        if type(node) is Ref and id(node) not in self.copies:
            return Ref(self._mapped(node.target))  # inside of its own target
        return self.copies[id(node)]


def _is(one: object, other: object) -> bool:
    return one is other


def _changed(change: Change, items: list[Part]) -> Change:
    if isinstance(change, Drop):
        return Drop(change.op, items, change.marked, change.early, change.depth)
    return Change(change.op, items, change.through)


def _blank(node: Node) -> Node:
    """A node of the same kind with nothing in it yet."""
    copy = object.__new__(type(node))
    for kind in type(node).__mro__[:-1]:
        for name in kind.__slots__:  # type: ignore[attr-defined]
            setattr(copy, name, getattr(node, name))
    return copy


def _tuple_code(code: int, count: int) -> int:
    """The opcode for a tuple that may have lost items."""
    if code in (op.TUPLE1, op.TUPLE2, op.TUPLE3):
        return (op.EMPTY_TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3)[count]
    return code

"""A pickle as a graph of inert nodes: what each opcode made, in the order of the file.

A node stands where it was made. Wherever the file fetches an object from the memo, there is a Ref
to its node. What the file does to an object later (items, state) is a list of Changes on the node,
or on the Ref where it happens, so that writing the nodes in order gives the same opcodes again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any, TypeAlias

from liontool.checkpoint.formats import pickle_opcodes as op


class Node:
    """What one opcode made.

    Attributes:
        changes: What the file does to it afterwards, in order.
        memoized: Whether the file puts it into the memo.
        depth: How deep the objects inside it are nested.
    """

    __slots__ = ("changes", "depth", "memoized")

    def __init__(self) -> None:
        self.changes: list[Change] | None = None
        self.memoized = False
        self.depth = 0


class Atom(Node):
    """A number, string, bytes, bool or None.

    Attributes:
        op: The opcode that spells it.
        value: The value in Python.
        raw: Opcode and argument, where the value alone does not tell how the file spells it.
    """

    __slots__ = ("op", "raw", "value")

    def __init__(self, op: int, value: Any, raw: bytes | None = None) -> None:
        self.changes = None
        self.memoized = False
        self.depth = 0
        self.op = op
        self.value = value
        self.raw = raw


class Composite(Node):
    """An object made of others.

    Attributes:
        op: The opcode that makes it.
        items: What that opcode takes from the stack.
    """

    __slots__ = ("items", "op")

    def __init__(self, op: int, items: Sequence[Node] = ()) -> None:
        self.changes = None
        self.memoized = False
        self.depth = depth_of(items)
        self.op = op
        self.items = items


class Tuple(Composite):
    """A tuple."""

    __slots__ = ()


class List(Composite):
    """A list; `items` is empty unless the opcode is LIST."""

    __slots__ = ()


class Dict(Composite):
    """A dict; `items` alternates keys and values, and is empty unless the opcode is DICT."""

    __slots__ = ()


class Set(Composite):
    """A set."""

    __slots__ = ()


class FrozenSet(Composite):
    """A frozenset."""

    __slots__ = ()


class Call(Composite):
    """An object made by calling something: REDUCE, NEWOBJ, NEWOBJ_EX, OBJ, INST.

    `items` is the callable and what the opcode gives it: an argument tuple, that and keywords, or
    (OBJ, INST) the arguments themselves.
    """

    __slots__ = ()


class PersistentId(Composite):
    """An object that lives outside the pickle; `items` is its id."""

    __slots__ = ()


class Global(Composite):
    """A class or function, by name. `items` is the two strings if the opcode is STACK_GLOBAL."""

    __slots__ = ("module", "name")

    def __init__(self, module: str, name: str, code: int = op.GLOBAL, items: Any = ()) -> None:
        super().__init__(code, items)
        self.module = module
        self.name = name

    @property
    def full_name(self) -> str:
        """Module and name with a dot between."""
        return f"{self.module}.{self.name}"


class Ref(Node):
    """An object from the memo: the node itself stands somewhere else."""

    __slots__ = ("target",)

    def __init__(self, target: Node) -> None:
        self.changes = None
        self.memoized = False
        self.depth = target.depth
        self.target = target


class Change:
    """Something done to an object: APPEND, APPENDS, SETITEM, SETITEMS, ADDITEMS, BUILD.

    Attributes:
        op: The opcode.
        items: What the opcode takes from the stack.
        through: Whether it stands at a Ref; then the changed node lists it too, for readers.
    """

    __slots__ = ("items", "op", "through")

    def __init__(self, op: int, items: Sequence[Part], through: bool = False) -> None:
        self.op = op
        self.items = items
        self.through = through


class Drop(Change):
    """Objects that are made and thrown away by POP or POP_MARK (calls made for their effect).

    Attributes:
        marked: Whether there was a mark below them.
        early: Whether they stand before the node that carries this Drop, not after it.
        depth: How deep Drops are nested in it.
    """

    __slots__ = ("depth", "early", "marked")

    def __init__(
        self, op: int, items: Sequence[Part], marked: bool, early: bool, depth: int = 1
    ) -> None:
        super().__init__(op, items)
        self.depth = depth
        self.marked = marked
        self.early = early


Part: TypeAlias = Node | Drop


def depth_of(items: Sequence[Node]) -> int:
    """Depth of an object that has `items` in it."""
    return 1 + max(map(_DEPTH, items)) if items else 1


_DEPTH = attrgetter("depth")


def resolve(node: Node) -> Node:
    """The node itself, if `node` is a Ref to it."""
    return node.target if type(node) is Ref else node


def children(node: Node) -> Iterator[Node]:
    """Every node directly below `node` in the order of the file, Refs as they stand."""
    if isinstance(node, Composite):
        yield from node.items
    elif isinstance(node, Ref):
        yield node.target
    for change in node.changes or ():
        yield from _nodes_in(change)


def _nodes_in(change: Change) -> Iterator[Node]:
    todo: list[Part | Change] = [change]
    while todo:
        part = todo.pop()
        if isinstance(part, Node):
            yield part
        else:
            todo.extend(reversed(part.items))


def walk(root: Node) -> Iterator[Node]:
    """Every composite that can be reached from `root`, once, in the order of the file."""
    seen: set[Node] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if not node.changes:
            node = resolve(node)
            if type(node) is Atom and not node.changes:
                continue
        if node in seen:
            continue
        seen.add(node)
        if isinstance(node, Composite):
            yield node
        # Most nodes are atoms, which are not worth a turn.
        below = [n for n in _below(node) if n.changes or type(n) is not Atom]
        todo.extend(reversed(below))


def _below(node: Node) -> Sequence[Node]:
    """The same as `children`, at once where nothing was done to the node."""
    if not node.changes and isinstance(node, Composite):
        return node.items
    return list(children(node))

"""Nodes to pickle bytes: the opcodes of the file again, in its order, with a memo numbered anew.

Frames are left out; every reader can do without. Where an edit took away the place at which an
object was made, the first Ref to it makes it.
"""

from __future__ import annotations

import struct
from typing import TypeAlias

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Change,
    Composite,
    Drop,
    Global,
    Node,
    PersistentId,
    Ref,
    Tuple,
)
from liontool.errors import LimitError

MAX_STEPS = 24_000_000
"""Two for each opcode; more are taken only if an edit tangles a graph made to be tangled."""

MAX_LOOPS = 1000
"""Tuples that contain themselves are written twice; without a list on the way it never ends."""

_TANGLED = "the edited pickle is too tangled to be written"


def emit(root: Node, protocol: int) -> bytes:
    """The pickle of a graph.

    Args:
        root: The graph. A node that stands in two places is written once and fetched from the memo.
        protocol: What the pickle says of itself, and how it uses the memo.

    Raises:
        LimitError: The graph is tangled beyond measure.
    """
    shared: set[Node] = set()
    while True:
        writer = _Writer(protocol, shared)
        data = writer.run(root)
        if not writer.found_shared:
            return data
        shared |= writer.found_shared


class _Close:
    """Work to do when all that an opcode takes is written."""

    __slots__ = ("node",)

    def __init__(self, node: Composite) -> None:
        self.node = node


class _Body:
    """A node whose early drops are written."""

    __slots__ = ("node",)

    def __init__(self, node: Node) -> None:
        self.node = node


_Work: TypeAlias = Node | Change | bytes | _Close | _Body


class _Writer:
    """One go at writing.

    Attributes:
        memo: Memo numbers of what is written.
        begun: Composites that were met, and are not in the memo (yet).
        shared: Nodes that need the memo though the file did not put them there.
        loops: How often something was met inside of itself before it was in the memo.
        found_shared: The same, found in this go; what was written is then of no use.
    """

    def __init__(self, protocol: int, shared: set[Node]) -> None:
        self.protocol = protocol
        self.memo: dict[Node, int] = {}
        self.begun: set[Node] = set()
        self.shared = shared
        self.found_shared: set[Node] = set()
        self.loops = 0
        self.out = bytearray()
        self.todo: list[_Work] = []

    def run(self, root: Node) -> bytes:
        if self.protocol >= 2:
            self.out += bytes((op.PROTO, self.protocol))
        todo = self.todo
        todo.append(root)
        for _ in range(MAX_STEPS):
            if not todo:
                self.out.append(op.STOP)
                return bytes(self.out)
            work = todo.pop()
            if type(work) is bytes:
                self.out += work
            elif type(work) is _Close:
                self.close(work.node)
            elif isinstance(work, Node):
                self.begin(work)
            elif type(work) is _Body:
                self.body(work.node)
            elif isinstance(work, Change):
                self.change(work)
        raise LimitError(_TANGLED)

    def begin(self, node: Node) -> None:
        if not node.changes:
            self.body(node)
            return
        if type(node) is Atom or type(node) is Ref:
            self.todo.extend(reversed([change for change in node.changes if not _early(change)]))
        self.todo.append(_Body(node))
        self.todo.extend(reversed([change for change in node.changes if _early(change)]))

    def body(self, node: Node) -> None:
        if type(node) is Ref:
            node = node.target
            if node not in self.memo:
                self.todo.append(node)
                return
        if node in self.memo:
            self.get(node)
        elif isinstance(node, Atom):
            self.atom(node)
        elif isinstance(node, Composite):
            self.composite(node)

    def atom(self, node: Atom) -> None:
        self.out += node.raw or spell(node.op, node.value)
        if node.memoized:
            self.put(node)

    def composite(self, node: Composite) -> None:
        again = node in self.begun and node.op not in _BARE
        if again and not (node.memoized or node in self.shared):
            self.found_shared.add(node)
            return
        self.loops += again
        if self.loops > MAX_LOOPS:
            raise LimitError(_TANGLED)
        self.begun.add(node)
        self.todo.append(_Close(node))
        if node.op == op.INST:
            self.todo.extend(reversed(node.items[1:]))
        elif node.op != op.PERSID:
            self.todo.extend(reversed(node.items))
        if node.op in op.MARKED:
            self.out.append(op.MARK)

    def close(self, node: Composite) -> None:
        if node in self.memo:  # it is part of itself, and was finished in there
            self.discard(node)
            return
        self.out += _closing(node)
        if node.memoized or node in self.shared:
            self.put(node)
            self.begun.discard(node)
        if node.changes:
            later = [c for c in node.changes if not (_early(c) or c.through)]
            self.todo.extend(reversed(later))

    def discard(self, node: Composite) -> None:
        """Throw away what is on the stack for `node`; fetch it from the memo, as pickle does."""
        if not isinstance(node, Tuple):
            self.out += _closing(node) + _POP
        elif node.op != op.TUPLE:
            self.out += _POP * len(node.items)
        elif self.protocol:
            self.out.append(op.POP_MARK)
        else:
            self.out += _POP * (len(node.items) + 1)
        self.get(node)

    def change(self, change: Change) -> None:
        if not change.items and not isinstance(change, Drop):
            return  # an edit has taken all of it
        self.todo.append(_CODES[change.op])
        self.todo.extend(reversed(change.items))
        if change.op in op.MARKED or (isinstance(change, Drop) and change.marked):
            self.todo.append(_CODES[op.MARK])

    def put(self, node: Node) -> None:
        number = self.memo[node] = len(self.memo)
        if self.protocol >= 4:
            self.out.append(op.MEMOIZE)
        else:
            self.out += self.numbered(op.PUT, op.BINPUT, op.LONG_BINPUT, number)

    def get(self, node: Node) -> None:
        self.out += self.numbered(op.GET, op.BINGET, op.LONG_BINGET, self.memo[node])

    def numbered(self, line: int, short: int, long: int, number: int) -> bytes:
        """An opcode of the memo in the spelling of the protocol."""
        if self.protocol == 0:
            return b"%c%d\n" % (line, number)
        if number < 256:
            return bytes((short, number))
        return _LONG.pack(long, number)


_BARE = frozenset((op.GLOBAL, op.STACK_GLOBAL, op.EMPTY_TUPLE))
"""Nothing can be changed in what these make: two of it are as good as one."""

_CODES = [bytes((code,)) for code in range(256)]
_LONG = struct.Struct("<BI")
_POP = _CODES[op.POP]


def _early(change: Change) -> bool:
    return isinstance(change, Drop) and change.early


def _closing(node: Composite) -> bytes:
    """The opcode that makes a composite of what was written, with its own argument."""
    if node.op == op.GLOBAL and isinstance(node, Global):
        return _named(op.GLOBAL, node)
    if node.op == op.INST and isinstance(node, Call):
        name = node.items[0]
        return _named(op.INST, name) if isinstance(name, Global) else b""
    if node.op == op.PERSID and isinstance(node, PersistentId):
        name = node.items[0]
        return b"P%s\n" % name.raw if isinstance(name, Atom) and name.raw else b"P\n"
    return _CODES[node.op]


def _named(code: int, name: Global) -> bytes:
    return bytes((code,)) + f"{name.module}\n{name.name}\n".encode()


_SIZED = {
    op.SHORT_BINUNICODE: "<BB", op.BINUNICODE: "<BI", op.BINUNICODE8: "<BQ",
    op.SHORT_BINBYTES: "<BB", op.BINBYTES: "<BI", op.BINBYTES8: "<BQ", op.BYTEARRAY8: "<BQ",
}  # fmt: skip
_PACKED = {op.BININT1: "<BB", op.BININT2: "<BH", op.BININT: "<Bi", op.BINFLOAT: ">Bd"}


def spell(code: int, value: object) -> bytes:
    """An atom's opcode with its argument."""
    if code in _PACKED:
        return struct.pack(_PACKED[code], code, value)
    if code in _SIZED:
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        if isinstance(data, bytes):
            return struct.pack(_SIZED[code], code, len(data)) + data
    return _CODES[code]

"""The machine that a pickle is a program for: stack, marks and memo, and the rules they keep."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import NoReturn

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Change,
    Composite,
    Dict,
    Drop,
    Global,
    List,
    Node,
    PersistentId,
    Ref,
    Set,
    Tuple,
    children,
    depth_of,
    resolve,
)
from liontool.errors import FormatError, LimitError, TruncatedError


class PickleLimits:
    """What a pickle may claim; honest files stay far below."""

    BYTES = 512 << 20
    OPCODES = 10_000_000
    MARKS = 1000
    DEPTH = 256
    DROPS = 30
    INTEGER_BYTES = 1024
    NUMBER_LINE = 2500
    LINE = 64 << 20


CONSTANTS = {op.NONE: None, op.NEWTRUE: True, op.NEWFALSE: False}
"""Opcodes that stand for a value of their own."""

_SHARED_OPS = frozenset({*CONSTANTS, op.BININT1})

NO_ITEMS = Tuple(op.EMPTY_TUPLE)
"""The empty tuple, shared until somebody changes it."""

_CHANGEABLE: dict[int, tuple[type[Node], ...]] = {
    op.APPEND: (List, Call, PersistentId),
    op.APPENDS: (List, Call, PersistentId),
    op.SETITEM: (Dict, Call, PersistentId),
    op.SETITEMS: (Dict, Call, PersistentId),
    op.ADDITEMS: (Set, Call, PersistentId),
    op.BUILD: (Call, PersistentId, Global),
}

_LONG = struct.Struct("<I")


class _Refused(Exception):
    """A rule is broken; `run` says where."""

    def __init__(self, message: str, kind: type[FormatError]) -> None:
        super().__init__(message)
        self.kind = kind


def refuse(message: str, kind: type[FormatError] = FormatError) -> NoReturn:
    """Stop; `run` adds which opcode did it, and where."""
    raise _Refused(message, kind)


def _refuse_depth() -> NoReturn:
    refuse(f"objects nested deeper than {PickleLimits.DEPTH}", LimitError)


def _check_depth(root: Node) -> None:
    """Refuse a graph that got too deep through Refs, where depths noted earlier do not hold."""
    depths: dict[int, int] = {}
    todo = [(root, False)]
    while todo:
        node, done = todo.pop()
        node = resolve(node)
        if done:
            below = (depths.get(id(resolve(child)), 0) for child in children(node))
            depths[id(node)] = depth = 1 + max(below, default=0)
            if depth > PickleLimits.DEPTH:
                _refuse_depth()
        elif id(node) not in depths and isinstance(node, Composite):
            depths[id(node)] = 0
            todo.append((node, True))
            todo.extend((child, False) for child in children(node))


class Machine:
    """The interpreter: its state, and what more than one opcode does.

    Attributes:
        stack: Nodes above the topmost mark.
        dropped: What was thrown away with nothing below it on `stack`; the next node carries it.
        marks: `stack` and `dropped` below each mark.
        memo: What the pickle numbered from 0 on, as all known writers do: there can be millions.
        far_memo: What it numbered otherwise.
    """

    __slots__ = (
        "data",
        "deepened",
        "dropped",
        "far_memo",
        "marks",
        "memo",
        "position",
        "stack",
        "where",
    )

    def __init__(self, data: bytes, where: str) -> None:
        self.data = data
        self.where = where
        self.position = 0
        self.stack: list[Node] = []
        self.dropped: list[Drop] = []
        self.marks: list[tuple[list[Node], list[Drop]]] = []
        self.memo: list[Node] = []
        self.far_memo: dict[int, Node] = {}
        self.deepened = False

    def run(self, readers: Sequence[Callable[[Machine], None]]) -> Node:
        """Do what the opcodes say, by the readers of each, up to the last one."""
        start, data = 0, self.data
        try:
            for _ in range(PickleLimits.OPCODES):
                start = self.position
                code = data[start]
                self.position = start + 1
                if code == op.STOP:
                    return self.finish()
                readers[code](self)
                if self.dropped and self.stack:
                    self.carry_dropped()
        except _Refused as refusal:
            raise refusal.kind(f"{self.at(start)}: {refusal}") from None
        except (IndexError, struct.error):
            kind = TruncatedError if self.position >= len(data) else FormatError
            raise kind(f"{self.at(start)}: the pickle is cut off or damaged") from None
        except (ValueError, KeyError, OverflowError):
            raise FormatError(f"{self.at(start)}: its argument makes no sense") from None
        raise LimitError(f"{self.where}: pickle of more than {PickleLimits.OPCODES} opcodes")

    def at(self, start: int) -> str:
        if start >= len(self.data):
            return f"{self.where}: pickle without end at byte {start}"
        code = self.data[start]
        return f"{self.where}: pickle opcode {op.NAMES.get(code, hex(code))} at byte {start}"

    def finish(self) -> Node:
        if self.marks or len(self.stack) != 1:
            refuse("the pickle must leave exactly one object")
        root = self.stack[0]
        if self.deepened:
            _check_depth(root)
        return root

    def carry_dropped(self) -> None:
        """Give what was dropped before the first object of this stack to that object."""
        node = self.own(0)
        node.changes = [*self.dropped, *(node.changes or ())]
        self.dropped = []

    def own(self, index: int) -> Node:
        """The node on the stack, made unshared, so that a change can stand at it."""
        node = self.stack[index]
        copy: Node | None = None
        if type(node) is Ref and node.changes is None:
            copy = Ref(node.target)
        elif type(node) is Atom and node.op in _SHARED_OPS and node.changes is None:
            copy = Atom(node.op, node.value)
        elif node is NO_ITEMS:
            copy = Tuple(op.EMPTY_TUPLE)
        if copy is not None:
            self.stack[index] = node = copy
        return node

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self.data):
            left = len(self.data) - self.position
            refuse(f"claims {count} bytes where {left} are left", TruncatedError)
        part = self.data[self.position : end]
        self.position = end
        return part

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def remember(self, index: int, node: Node) -> None:
        """Put a node into the memo."""
        memo = self.memo
        if index < len(memo):
            memo[index] = node
        elif index == len(memo):
            memo.append(node)
            self.far_memo.pop(index, None)
        else:
            self.far_memo[index] = node

    def recall(self, index: int) -> Node | None:
        """A node from the memo; None if it is not there."""
        if 0 <= index < len(self.memo):
            return self.memo[index]
        return self.far_memo.get(index)

    def long_number(self) -> int:
        """A number of four bytes: memo entries of large pickles, hundreds of thousands of them."""
        position = self.position
        self.position = position + 4
        number: int = _LONG.unpack_from(self.data, position)[0]
        return number

    def line(self, limit: int = PickleLimits.LINE) -> bytes:
        """The bytes up to the next newline."""
        end = self.data.find(b"\n", self.position, self.position + limit + 1)
        if end < 0:
            if len(self.data) - self.position > limit:
                refuse(f"line of more than {limit} bytes", LimitError)
            refuse("line without end", TruncatedError)
        part = self.data[self.position : end]
        self.position = end + 1
        return part

    def pop_mark(self) -> list[Node]:
        """Everything above the topmost mark."""
        items = self.stack
        if not self.marks:
            refuse("no mark on the stack")
        self.stack, dropped = self.marks.pop()
        dropped.extend(self.dropped)
        self.dropped = dropped
        return items

    def push(self, node: Node) -> None:
        if node.depth > PickleLimits.DEPTH:
            _refuse_depth()
        self.stack.append(node)

    def change(self, code: int, items: list[Node]) -> None:
        """Do something to the topmost object."""
        top = self.own(-1)
        target = resolve(top)
        if not isinstance(target, _CHANGEABLE[code]):
            refuse(f"done to {type(target).__name__.lower()}, which cannot take it")
        change = Change(code, items, through=target is not top)
        note(target, change)
        if target is not top:
            note(top, change)
        target.depth = top.depth = max(target.depth, depth_of(items))
        if target.depth > PickleLimits.DEPTH:
            _refuse_depth()
        self.deepened |= change.through


def note(node: Node, change: Change) -> None:
    """Add a change to those of a node."""
    if node.changes is None:
        node.changes = [change]
    else:
        node.changes.append(change)

"""Pickle bytes to nodes, by a closed interpreter: nothing that they name is imported or called.

Protocols 0 to 5, less what only a running program could answer: the extension registry and
out-of-band buffers. The stack holds nodes; a mark sets the stack aside and begins a new one.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable
from typing import NoReturn

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Change,
    Composite,
    Dict,
    Drop,
    FrozenSet,
    Global,
    List,
    Node,
    Part,
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


def parse(data: bytes | memoryview, *, where: str) -> tuple[Node, int]:
    """Read one pickle from the start of `data`.

    Args:
        data: The bytes; more may follow the pickle.
        where: What to call them in messages: "adamw.pt: data.pkl".

    Returns:
        The root node, and how many bytes the pickle takes.

    Raises:
        FormatError: The bytes are no pickle, or one that needs a running program.
        LimitError: The pickle claims more than `PickleLimits`.
    """
    if len(data) > PickleLimits.BYTES:
        raise LimitError(
            f"{where}: pickle of {len(data)} bytes; at most {PickleLimits.BYTES} are read"
        )
    parser = _Parser(bytes(data), where)
    return parser.run(), parser.position


def protocol_of(data: bytes | memoryview) -> int:
    """The protocol to write this pickle in again; 1 where it does not say (0 and 1 do not)."""
    return data[1] if len(data) > 1 and data[0] == op.PROTO and data[1] <= 5 else 1


class _Parser:
    """The interpreter's state.

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

    def run(self) -> Node:
        start, data, readers = 0, self.data, _READERS
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
            _refuse("the pickle must leave exactly one object")
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
        elif node is _NO_ITEMS:
            copy = Tuple(op.EMPTY_TUPLE)
        if copy is not None:
            self.stack[index] = node = copy
        return node

    def take(self, count: int) -> bytes:
        """The next `count` bytes."""
        end = self.position + count
        if end > len(self.data):
            left = len(self.data) - self.position
            _refuse(f"claims {count} bytes where {left} are left", TruncatedError)
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
                _refuse(f"line of more than {limit} bytes", LimitError)
            _refuse("line without end", TruncatedError)
        part = self.data[self.position : end]
        self.position = end + 1
        return part

    def pop_mark(self) -> list[Node]:
        """Everything above the topmost mark."""
        items = self.stack
        if not self.marks:
            _refuse("no mark on the stack")
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
            _refuse(f"done to {type(target).__name__.lower()}, which cannot take it")
        change = Change(code, items, through=target is not top)
        _note(target, change)
        if target is not top:
            _note(top, change)
        target.depth = top.depth = max(target.depth, depth_of(items))
        if target.depth > PickleLimits.DEPTH:
            _refuse_depth()
        self.deepened |= change.through


def _note(node: Node, change: Change) -> None:
    if node.changes is None:
        node.changes = [change]
    else:
        node.changes.append(change)


_LONG = struct.Struct("<I")


class _Refused(Exception):
    """A rule is broken; `run` says where."""

    def __init__(self, message: str, kind: type[FormatError]) -> None:
        super().__init__(message)
        self.kind = kind


def _refuse(message: str, kind: type[FormatError] = FormatError) -> NoReturn:
    raise _Refused(message, kind)


def _refuse_depth() -> NoReturn:
    _refuse(f"objects nested deeper than {PickleLimits.DEPTH}", LimitError)


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


_Reader = Callable[[_Parser], None]
_READERS: list[_Reader] = []


def _unknown(parser: _Parser) -> None:
    _refuse("not an opcode of protocols 0 to 5 that a file can be read with")


_READERS.extend([_unknown] * 256)


def _reads(*codes: int) -> Callable[[_Reader], _Reader]:
    def register(reader: _Reader) -> _Reader:
        for code in codes:
            _READERS[code] = reader
        return reader

    return register


# Framing


@_reads(op.PROTO)
def _proto(parser: _Parser) -> None:
    version = parser.number(1)
    if version > 5:
        _refuse(f"protocol {version}; 0 to 5 can be read")


@_reads(op.FRAME)
def _frame(parser: _Parser) -> None:
    length = parser.number(8)
    left = len(parser.data) - parser.position
    if length > left:
        _refuse(f"frame of {length} bytes where {left} are left", TruncatedError)


# Numbers, strings, bytes

_CONSTANTS = {op.NONE: None, op.NEWTRUE: True, op.NEWFALSE: False}
_SHARED_OPS = frozenset({*_CONSTANTS, op.BININT1})
_SMALL = [Atom(op.BININT1, value) for value in range(256)]


def _constant(code: int) -> _Reader:
    atom = Atom(code, _CONSTANTS[code])
    return lambda parser: parser.stack.append(atom)


for _code in _CONSTANTS:
    _READERS[_code] = _constant(_code)


@_reads(op.BININT1)
def _binint1(parser: _Parser) -> None:
    position = parser.position
    parser.position = position + 1
    parser.stack.append(_SMALL[parser.data[position]])


def _packed(code: int, layout: str) -> None:
    unpack = struct.Struct(layout).unpack_from
    size = struct.calcsize(layout)

    @_reads(code)
    def read(parser: _Parser) -> None:
        position = parser.position
        parser.position = position + size
        parser.stack.append(Atom(code, unpack(parser.data, position)[0]))


_packed(op.BININT, "<i")
_packed(op.BININT2, "<H")
_packed(op.BINFLOAT, ">d")


def _long(code: int, size: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        start = parser.position - 1
        length = parser.number(size)
        if length > PickleLimits.INTEGER_BYTES:
            _refuse(f"integer of {length} bytes", LimitError)
        value = int.from_bytes(parser.take(length), "little", signed=True)
        parser.stack.append(Atom(code, value, parser.data[start : parser.position]))


_long(op.LONG1, 1)
_long(op.LONG4, 4)


def _sized(code: int, size: int, decode: Callable[[bytes], object]) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        data = parser.data
        begin = parser.position + size
        end = begin + int.from_bytes(data[parser.position : begin], "little")
        if end > len(data):
            left = max(len(data) - begin, 0)
            _refuse(f"claims {end - begin} bytes where {left} are left", TruncatedError)
        parser.position = end
        parser.stack.append(Atom(code, decode(data[begin:end])))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _sized_old(code: int, size: int) -> None:
    """Strings of Python 2, which may be text or bytes."""

    @_reads(code)
    def read(parser: _Parser) -> None:
        start = parser.position - 1
        value = _old_string(parser.take(parser.number(size)))
        parser.stack.append(Atom(code, value, parser.data[start : parser.position]))


def _old_string(data: bytes) -> str | bytes:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data


for _code, _size in ((op.SHORT_BINUNICODE, 1), (op.BINUNICODE, 4), (op.BINUNICODE8, 8)):
    _sized(_code, _size, _text)
for _code, _size in ((op.SHORT_BINBYTES, 1), (op.BINBYTES, 4), (op.BINBYTES8, 8)):
    _sized(_code, _size, bytes)
_sized(op.BYTEARRAY8, 8, bytes)
_sized_old(op.SHORT_BINSTRING, 1)
_sized_old(op.BINSTRING, 4)


def _lined(code: int, decode: Callable[[bytes], object], limit: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        start = parser.position - 1
        value = decode(parser.line(limit))
        parser.stack.append(Atom(code, value, parser.data[start : parser.position]))


def _int(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str | bytes:
    line = line.strip()
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        _refuse("string without its quotes")
    return _old_string(_unescaped(line[1:-1]))


def _unescaped(data: bytes) -> bytes:
    if b"\\" not in data:
        return data
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return codecs.escape_decode(data)[0]


def _raw_unicode(line: bytes) -> str:
    return line.decode("raw-unicode-escape")


_lined(op.INT, _int, PickleLimits.NUMBER_LINE)
_lined(op.LONG, lambda line: int(line.removesuffix(b"L")), PickleLimits.NUMBER_LINE)
_lined(op.FLOAT, float, PickleLimits.NUMBER_LINE)
_lined(op.STRING, _quoted, PickleLimits.LINE)
_lined(op.UNICODE, _raw_unicode, PickleLimits.LINE)


# Containers


_NO_ITEMS = Tuple(op.EMPTY_TUPLE)


@_reads(op.EMPTY_TUPLE)
def _empty_tuple(parser: _Parser) -> None:
    parser.stack.append(_NO_ITEMS)


def _short_tuple(code: int, count: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        stack = parser.stack
        if len(stack) < count:
            _refuse("the stack is too short")
        items = tuple(stack[-count:])
        del stack[-count:]
        parser.push(Tuple(code, items))


_short_tuple(op.TUPLE1, 1)
_short_tuple(op.TUPLE2, 2)
_short_tuple(op.TUPLE3, 3)


def _from_mark(code: int, kind: type[Composite]) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        items = parser.pop_mark()
        if kind is Dict and len(items) % 2:
            _refuse("a key without a value")
        parser.push(kind(code, tuple(items)))


_from_mark(op.TUPLE, Tuple)
_from_mark(op.LIST, List)
_from_mark(op.DICT, Dict)
_from_mark(op.FROZENSET, FrozenSet)


def _empty(code: int, kind: type[Composite]) -> None:
    _READERS[code] = lambda parser: parser.stack.append(kind(code))


_empty(op.EMPTY_LIST, List)
_empty(op.EMPTY_DICT, Dict)
_empty(op.EMPTY_SET, Set)


# Changes

_CHANGEABLE: dict[int, tuple[type[Node], ...]] = {
    op.APPEND: (List, Call, PersistentId),
    op.APPENDS: (List, Call, PersistentId),
    op.SETITEM: (Dict, Call, PersistentId),
    op.SETITEMS: (Dict, Call, PersistentId),
    op.ADDITEMS: (Set, Call, PersistentId),
    op.BUILD: (Call, PersistentId, Global),
}


def _change(code: int, count: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        stack = parser.stack
        if len(stack) <= count:
            _refuse("the stack is too short")
        items = stack[-count:]
        del stack[-count:]
        parser.change(code, items)


_change(op.APPEND, 1)
_change(op.SETITEM, 2)
_change(op.BUILD, 1)


def _changes(code: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        items = parser.pop_mark()
        if code == op.SETITEMS and len(items) % 2:
            _refuse("a key without a value")
        parser.change(code, items)


_changes(op.APPENDS)
_changes(op.SETITEMS)
_changes(op.ADDITEMS)


# Classes, calls, objects from elsewhere


def _name(data: bytes) -> str:
    text = data.decode("utf-8")
    if not text:
        _refuse("a class without a name")
    return text


@_reads(op.GLOBAL)
def _global(parser: _Parser) -> None:
    module = _name(parser.line())
    parser.stack.append(Global(module, _name(parser.line())))


@_reads(op.STACK_GLOBAL)
def _stack_global(parser: _Parser) -> None:
    name, module = parser.stack.pop(), parser.stack.pop()
    names = [node.value for node in (resolve(module), resolve(name)) if isinstance(node, Atom)]
    if len(names) != 2 or not all(isinstance(part, str) and part for part in names):
        _refuse("module and name must be strings")
    parser.stack.append(Global(names[0], names[1], op.STACK_GLOBAL, (module, name)))


def _call(code: int, count: int) -> None:
    @_reads(code)
    def read(parser: _Parser) -> None:
        stack = parser.stack
        if len(stack) < count:
            _refuse("the stack is too short")
        items = tuple(stack[-count:])
        del stack[-count:]
        if not isinstance(resolve(items[1]), (Tuple, Call, PersistentId)):
            _refuse("arguments must be a tuple")
        parser.push(Call(code, items))


_call(op.REDUCE, 2)
_call(op.NEWOBJ, 2)
_call(op.NEWOBJ_EX, 3)


@_reads(op.OBJ)
def _obj(parser: _Parser) -> None:
    items = tuple(parser.pop_mark())
    if not items:
        _refuse("no class above the mark")
    parser.push(Call(op.OBJ, items))


@_reads(op.INST)
def _inst(parser: _Parser) -> None:
    module = _name(parser.line())
    name = _name(parser.line())
    parser.push(Call(op.INST, (Global(module, name), *parser.pop_mark())))


@_reads(op.PERSID)
def _persid(parser: _Parser) -> None:
    line = parser.line()
    name = Atom(op.UNICODE, line.decode("ascii"), line)
    parser.stack.append(PersistentId(op.PERSID, (name,)))


@_reads(op.BINPERSID)
def _binpersid(parser: _Parser) -> None:
    parser.push(PersistentId(op.BINPERSID, (parser.stack.pop(),)))


# Stack and memo


@_reads(op.MARK)
def _mark(parser: _Parser) -> None:
    if len(parser.marks) >= PickleLimits.MARKS:
        _refuse(f"more than {PickleLimits.MARKS} marks", LimitError)
    parser.marks.append((parser.stack, parser.dropped))
    parser.stack, parser.dropped = [], []


@_reads(op.POP)
def _pop(parser: _Parser) -> None:
    items: list[Part]
    marked = not parser.stack
    if marked:
        items, parser.dropped = list(parser.dropped), []
        parser.pop_mark()
    else:
        items = [parser.stack.pop()]
    _drop(parser, op.POP, items, marked)


@_reads(op.POP_MARK)
def _pop_mark(parser: _Parser) -> None:
    inner, parser.dropped = parser.dropped, []
    _drop(parser, op.POP_MARK, [*inner, *parser.pop_mark()], True)


def _drop(parser: _Parser, code: int, items: list[Part], marked: bool) -> None:
    depth = 1 + max([item.depth for item in items if isinstance(item, Drop)], default=0)
    if depth > PickleLimits.DROPS:
        _refuse("objects thrown away inside of others again and again", LimitError)
    if not parser.stack:
        parser.dropped.append(Drop(code, items, marked, True, depth))
        return
    _note(parser.own(-1), Drop(code, items, marked, False, depth))


@_reads(op.DUP)
def _dup(parser: _Parser) -> None:
    node = resolve(parser.own(-1))
    node.memoized = True
    parser.stack.append(Ref(node))


def _put(parser: _Parser, index: int) -> None:
    if index < 0:
        _refuse("negative memo index")
    node = parser.stack[-1]
    if type(node) is Ref or type(node) is Atom or node is _NO_ITEMS:
        node = resolve(parser.own(-1))
    node.memoized = True
    parser.remember(index, node)


@_reads(op.PUT)
def _put_line(parser: _Parser) -> None:
    _put(parser, int(parser.line(20)))


@_reads(op.BINPUT)
def _binput(parser: _Parser) -> None:
    _put(parser, parser.number(1))


@_reads(op.LONG_BINPUT)
def _long_binput(parser: _Parser) -> None:
    _put(parser, parser.long_number())


@_reads(op.MEMOIZE)
def _memoize(parser: _Parser) -> None:
    _put(parser, len(parser.memo) + len(parser.far_memo))


def _get(parser: _Parser, index: int) -> None:
    node = parser.recall(index)
    if node is None:
        _refuse(f"memo entry {index} was never made")
    if type(node) is not Ref:
        node = Ref(node)
        parser.remember(index, node)
    parser.push(node)


@_reads(op.GET)
def _get_line(parser: _Parser) -> None:
    _get(parser, int(parser.line(20)))


@_reads(op.BINGET)
def _binget(parser: _Parser) -> None:
    _get(parser, parser.number(1))


@_reads(op.LONG_BINGET)
def _long_binget(parser: _Parser) -> None:
    _get(parser, parser.long_number())

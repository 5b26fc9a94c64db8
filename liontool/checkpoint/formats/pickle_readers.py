"""What each opcode of a pickle does to the machine: one reader a code."""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_machine import (
    CONSTANTS,
    NO_ITEMS,
    Machine,
    PickleLimits,
    note,
    refuse,
)
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Composite,
    Dict,
    Drop,
    FrozenSet,
    Global,
    List,
    Part,
    PersistentId,
    Ref,
    Set,
    Tuple,
    resolve,
)
from liontool.errors import LimitError, TruncatedError

_Reader = Callable[[Machine], None]
READERS: list[_Reader] = []
"""By opcode."""


def _unknown(machine: Machine) -> None:
    refuse("not an opcode of protocols 0 to 5 that a file can be read with")


READERS.extend([_unknown] * 256)


def _reads(*codes: int) -> Callable[[_Reader], _Reader]:
    def register(reader: _Reader) -> _Reader:
        for code in codes:
            READERS[code] = reader
        return reader

    return register


# Framing


@_reads(op.PROTO)
def _proto(machine: Machine) -> None:
    version = machine.number(1)
    if version > 5:
        refuse(f"protocol {version}; 0 to 5 can be read")


@_reads(op.FRAME)
def _frame(machine: Machine) -> None:
    length = machine.number(8)
    left = len(machine.data) - machine.position
    if length > left:
        refuse(f"frame of {length} bytes where {left} are left", TruncatedError)


# Numbers, strings, bytes

_SMALL = [Atom(op.BININT1, value) for value in range(256)]


def _constant(code: int) -> _Reader:
    atom = Atom(code, CONSTANTS[code])
    return lambda machine: machine.stack.append(atom)


for _code in CONSTANTS:
    READERS[_code] = _constant(_code)


@_reads(op.BININT1)
def _binint1(machine: Machine) -> None:
    position = machine.position
    machine.position = position + 1
    machine.stack.append(_SMALL[machine.data[position]])


def _packed(code: int, layout: str) -> None:
    unpack = struct.Struct(layout).unpack_from
    size = struct.calcsize(layout)

    @_reads(code)
    def read(machine: Machine) -> None:
        position = machine.position
        machine.position = position + size
        machine.stack.append(Atom(code, unpack(machine.data, position)[0]))


_packed(op.BININT, "<i")
_packed(op.BININT2, "<H")
_packed(op.BINFLOAT, ">d")


def _long(code: int, size: int) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        start = machine.position - 1
        length = machine.number(size)
        if length > PickleLimits.INTEGER_BYTES:
            refuse(f"integer of {length} bytes", LimitError)
        value = int.from_bytes(machine.take(length), "little", signed=True)
        machine.stack.append(Atom(code, value, machine.data[start : machine.position]))


_long(op.LONG1, 1)
_long(op.LONG4, 4)


def _sized(code: int, size: int, decode: Callable[[bytes], object]) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        data = machine.data
        begin = machine.position + size
        end = begin + int.from_bytes(data[machine.position : begin], "little")
        if end > len(data):
            left = max(len(data) - begin, 0)
            refuse(f"claims {end - begin} bytes where {left} are left", TruncatedError)
        machine.position = end
        machine.stack.append(Atom(code, decode(data[begin:end])))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _sized_old(code: int, size: int) -> None:
    """Strings of Python 2, which may be text or bytes."""

    @_reads(code)
    def read(machine: Machine) -> None:
        start = machine.position - 1
        value = _old_string(machine.take(machine.number(size)))
        machine.stack.append(Atom(code, value, machine.data[start : machine.position]))


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
    def read(machine: Machine) -> None:
        start = machine.position - 1
        value = decode(machine.line(limit))
        machine.stack.append(Atom(code, value, machine.data[start : machine.position]))


def _int(line: bytes) -> int | bool:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line)


def _quoted(line: bytes) -> str | bytes:
    line = line.strip()
    if len(line) < 2 or line[0] != line[-1] or line[:1] not in (b"'", b'"'):
        refuse("string without its quotes")
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


@_reads(op.EMPTY_TUPLE)
def _empty_tuple(machine: Machine) -> None:
    machine.stack.append(NO_ITEMS)


def _short_tuple(code: int, count: int) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < count:
            refuse("the stack is too short")
        items = tuple(stack[-count:])
        del stack[-count:]
        machine.push(Tuple(code, items))


_short_tuple(op.TUPLE1, 1)
_short_tuple(op.TUPLE2, 2)
_short_tuple(op.TUPLE3, 3)


def _from_mark(code: int, kind: type[Composite]) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        items = machine.pop_mark()
        if kind is Dict and len(items) % 2:
            refuse("a key without a value")
        machine.push(kind(code, tuple(items)))


_from_mark(op.TUPLE, Tuple)
_from_mark(op.LIST, List)
_from_mark(op.DICT, Dict)
_from_mark(op.FROZENSET, FrozenSet)


def _empty(code: int, kind: type[Composite]) -> None:
    READERS[code] = lambda machine: machine.stack.append(kind(code))


_empty(op.EMPTY_LIST, List)
_empty(op.EMPTY_DICT, Dict)
_empty(op.EMPTY_SET, Set)


# Changes


def _change(code: int, count: int) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) <= count:
            refuse("the stack is too short")
        items = stack[-count:]
        del stack[-count:]
        machine.change(code, items)


_change(op.APPEND, 1)
_change(op.SETITEM, 2)
_change(op.BUILD, 1)


def _changes(code: int) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        items = machine.pop_mark()
        if code == op.SETITEMS and len(items) % 2:
            refuse("a key without a value")
        machine.change(code, items)


_changes(op.APPENDS)
_changes(op.SETITEMS)
_changes(op.ADDITEMS)


# Classes, calls, objects from elsewhere


def _name(data: bytes) -> str:
    text = data.decode("utf-8")
    if not text:
        refuse("a class without a name")
    return text


@_reads(op.GLOBAL)
def _global(machine: Machine) -> None:
    module = _name(machine.line())
    machine.stack.append(Global(module, _name(machine.line())))


@_reads(op.STACK_GLOBAL)
def _stack_global(machine: Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    names = [node.value for node in (resolve(module), resolve(name)) if isinstance(node, Atom)]
    if len(names) != 2 or not all(isinstance(part, str) and part for part in names):
        refuse("module and name must be strings")
    machine.stack.append(Global(names[0], names[1], op.STACK_GLOBAL, (module, name)))


def _call(code: int, count: int) -> None:
    @_reads(code)
    def read(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < count:
            refuse("the stack is too short")
        items = tuple(stack[-count:])
        del stack[-count:]
        if not isinstance(resolve(items[1]), (Tuple, Call, PersistentId)):
            refuse("arguments must be a tuple")
        machine.push(Call(code, items))


_call(op.REDUCE, 2)
_call(op.NEWOBJ, 2)
_call(op.NEWOBJ_EX, 3)


@_reads(op.OBJ)
def _obj(machine: Machine) -> None:
    items = tuple(machine.pop_mark())
    if not items:
        refuse("no class above the mark")
    machine.push(Call(op.OBJ, items))


@_reads(op.INST)
def _inst(machine: Machine) -> None:
    module = _name(machine.line())
    name = _name(machine.line())
    machine.push(Call(op.INST, (Global(module, name), *machine.pop_mark())))


@_reads(op.PERSID)
def _persid(machine: Machine) -> None:
    line = machine.line()
    name = Atom(op.UNICODE, line.decode("ascii"), line)
    machine.stack.append(PersistentId(op.PERSID, (name,)))


@_reads(op.BINPERSID)
def _binpersid(machine: Machine) -> None:
    machine.push(PersistentId(op.BINPERSID, (machine.stack.pop(),)))


# Stack and memo


@_reads(op.MARK)
def _mark(machine: Machine) -> None:
    if len(machine.marks) >= PickleLimits.MARKS:
        refuse(f"more than {PickleLimits.MARKS} marks", LimitError)
    machine.marks.append((machine.stack, machine.dropped))
    machine.stack, machine.dropped = [], []


@_reads(op.POP)
def _pop(machine: Machine) -> None:
    items: list[Part]
    marked = not machine.stack
    if marked:
        items, machine.dropped = list(machine.dropped), []
        machine.pop_mark()
    else:
        items = [machine.stack.pop()]
    _drop(machine, op.POP, items, marked)


@_reads(op.POP_MARK)
def _pop_mark(machine: Machine) -> None:
    inner, machine.dropped = machine.dropped, []
    _drop(machine, op.POP_MARK, [*inner, *machine.pop_mark()], True)


def _drop(machine: Machine, code: int, items: list[Part], marked: bool) -> None:
    depth = 1 + max([item.depth for item in items if isinstance(item, Drop)], default=0)
    if depth > PickleLimits.DROPS:
        refuse("objects thrown away inside of others again and again", LimitError)
    if not machine.stack:
        machine.dropped.append(Drop(code, items, marked, True, depth))
        return
    note(machine.own(-1), Drop(code, items, marked, False, depth))


@_reads(op.DUP)
def _dup(machine: Machine) -> None:
    node = resolve(machine.own(-1))
    node.memoized = True
    machine.stack.append(Ref(node))


def _put(machine: Machine, index: int) -> None:
    if index < 0:
        refuse("negative memo index")
    node = machine.stack[-1]
    if type(node) is Ref or type(node) is Atom or node is NO_ITEMS:
        node = resolve(machine.own(-1))
    node.memoized = True
    machine.remember(index, node)


@_reads(op.PUT)
def _put_line(machine: Machine) -> None:
    _put(machine, int(machine.line(20)))


@_reads(op.BINPUT)
def _binput(machine: Machine) -> None:
    _put(machine, machine.number(1))


@_reads(op.LONG_BINPUT)
def _long_binput(machine: Machine) -> None:
    _put(machine, machine.long_number())


@_reads(op.MEMOIZE)
def _memoize(machine: Machine) -> None:
    _put(machine, len(machine.memo) + len(machine.far_memo))


def _get(machine: Machine, index: int) -> None:
    node = machine.recall(index)
    if node is None:
        refuse(f"memo entry {index} was never made")
    if type(node) is not Ref:
        node = Ref(node)
        machine.remember(index, node)
    machine.push(node)


@_reads(op.GET)
def _get_line(machine: Machine) -> None:
    _get(machine, int(machine.line(20)))


@_reads(op.BINGET)
def _binget(machine: Machine) -> None:
    _get(machine, machine.number(1))


@_reads(op.LONG_BINGET)
def _long_binget(machine: Machine) -> None:
    _get(machine, machine.long_number())

"""The opcodes of pickle protocols 0 to 5, as numbers, and their names for messages."""

from __future__ import annotations

MARK, STOP, POP, POP_MARK, DUP = b"(.012"
FLOAT, INT, BININT, BININT1, BININT2, LONG, LONG1, LONG4 = b"FIJKML\x8a\x8b"
BINFLOAT, NONE, NEWTRUE, NEWFALSE = b"GN\x88\x89"
STRING, BINSTRING, SHORT_BINSTRING = b"STU"
UNICODE, BINUNICODE, SHORT_BINUNICODE, BINUNICODE8 = b"VX\x8c\x8d"
BINBYTES, SHORT_BINBYTES, BINBYTES8, BYTEARRAY8 = b"BC\x8e\x96"
GLOBAL, STACK_GLOBAL, INST, OBJ, REDUCE, BUILD, NEWOBJ, NEWOBJ_EX = b"c\x93ioRb\x81\x92"
PERSID, BINPERSID = b"PQ"
EMPTY_TUPLE, TUPLE, TUPLE1, TUPLE2, TUPLE3 = b")t\x85\x86\x87"
EMPTY_LIST, LIST, APPEND, APPENDS = b"]lae"
EMPTY_DICT, DICT, SETITEM, SETITEMS = b"}dsu"
EMPTY_SET, ADDITEMS, FROZENSET = b"\x8f\x90\x91"
GET, BINGET, LONG_BINGET, PUT, BINPUT, LONG_BINPUT, MEMOIZE = b"ghjpqr\x94"
PROTO, FRAME = b"\x80\x95"
EXT1, EXT2, EXT4, NEXT_BUFFER, READONLY_BUFFER = b"\x82\x83\x84\x97\x98"

NAMES = {
    code: name for name, code in list(globals().items()) if name.isupper() and isinstance(code, int)
}
"""Name of each opcode by its number."""

MARKED = frozenset({TUPLE, LIST, DICT, FROZENSET, OBJ, INST, APPENDS, SETITEMS, ADDITEMS, POP_MARK})
"""Opcodes that take everything above the topmost mark."""

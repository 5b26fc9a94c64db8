"""Pickles of every protocol, parsed and emitted: the same opcodes, and the same objects."""

from __future__ import annotations

import argparse
import collections
import copyreg
import pickle
import pickletools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_parse import PickleLimits, parse, protocol_of
from liontool.errors import FormatError, LimitError

PROTOCOLS = range(6)


class Plain:
    """An ordinary object."""

    def __init__(self) -> None:
        self.name = "plain"
        self.itself = self

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plain)

    __hash__ = object.__hash__


class Slotted:
    """An object whose state is a pair."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = [1]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Slotted) and other.value == self.value

    __hash__ = None  # type: ignore[assignment]


class Everything(dict):  # type: ignore[type-arg]
    """Reduced with state, list items and dict items, all of them with itself inside."""

    def __init__(self) -> None:
        self.appended: list[object] = []

    def append(self, item: object) -> None:
        self.appended.append(item)

    def extend(self, items: list[object]) -> None:
        self.appended.extend(items)

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return Everything, (), {"me": [self]}, iter([1, self]), iter([("a", 1), ("b", self)])


class InItsArguments:
    """Reduced to a call that has the object itself among its arguments."""

    def __init__(self, items: list[object]) -> None:
        self.items = items

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return InItsArguments, (self.items,), {"extra": 1}


def _set_state(target: object, state: dict[str, object]) -> None:
    target.__dict__.update(state)  # type: ignore[attr-defined]


class SetByFunction:
    """Reduced with a function that sets the state: a call made for its effect."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return SetByFunction, (), {"x": 1, "me": self}, None, None, _set_state


def recursive(size: int) -> tuple[object, ...]:
    """A tuple of `size` items that contains itself in its first."""
    inner: list[object] = []
    made = (inner, *range(1, size))
    inner.append(made)
    return made


def samples() -> dict[str, object]:
    """Objects of every kind that a checkpoint may hold, by name."""
    own_list: list[object] = [1]
    own_list.append(own_list)
    own_dict: dict[str, object] = {}
    own_dict["me"] = own_dict
    shared = [1, 2]
    ordered = collections.OrderedDict(a=1, b=[2])
    ordered.meta = {"version": 1}  # type: ignore[attr-defined]
    in_arguments = InItsArguments([])
    in_arguments.items.append(in_arguments)
    return {
        "list in itself": own_list,
        "dict in itself": own_dict,
        **{f"tuple of {size} in itself": recursive(size) for size in (1, 2, 3, 5)},
        "shared": {"a": shared, "b": [shared, (shared, shared)]},
        "OrderedDict with attributes": ordered,
        "defaultdict": collections.defaultdict(list, {1: [2]}),
        "Counter": collections.Counter("hello"),
        "deque": collections.deque([1, [2]], 5),
        "sets": [{1, 2}, set(), frozenset([1]), frozenset()],
        "bytes": [b"", b"abc", b"\xff" * 300, bytearray(b"xyz")],
        "numbers": [0, -1, 255, 256, 65536, 1 << 40, -(1 << 100), 1 << 3000, 1.5, float("inf")],
        "constants": [None, True, False, (), complex(1, 2), range(3), slice(1, 2)],
        "text": ["", "plain", "\u00e9\u4e2d\U0001f600", "\ud800", "a\nb\\c\x00\r\x1a", "x" * 300],
        "long list": list(range(2500)),
        "long dict": {i: str(i) for i in range(2500)},
        "numpy scalars": [np.float64(1.5), np.int32(7), np.bool_(True), np.dtype(">f4")],
        "Namespace": argparse.Namespace(lr=0.1, betas=(0.9, 0.99)),
        "object in itself": Plain(),
        "state, items and entries": Everything(),
        "in its own arguments": in_arguments,
        "set by a function": SetByFunction(),
        "error": ValueError("x"),
        "class": [Plain, list, copyreg.dispatch_table.__class__],
        "many memo entries": [[str(i), [i]] * 2 for i in range(400)],
    }


SAMPLES = samples()


def opcodes(data: bytes) -> list[object]:
    """Opcodes with their arguments, less frames and the numbers of the memo."""
    found: list[object] = []
    for opcode, argument, _ in pickletools.genops(data):
        name = opcode.name
        if name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
            found.append("put")
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            found.append("get")
        elif name != "FRAME":
            found.append((name, repr(argument)))
    return found


def rewritten(data: bytes, protocol: int) -> bytes:
    root, used = parse(data, where="x")
    assert used == len(data)
    return emit(root, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", SAMPLES)
@pytest.mark.parametrize("dumps", [pickle.dumps, pickle._dumps], ids=["C", "Python"])  # type: ignore[attr-defined]
def test_opcodes_stay_the_same(name: str, protocol: int, dumps) -> None:  # type: ignore[no-untyped-def]
    """Parsed and emitted, a pickle has the opcodes that it had, and the objects it had."""
    data = dumps(SAMPLES[name], protocol)
    again = rewritten(data, protocol)
    assert opcodes(again) == opcodes(data)
    # Aliases too: what is loaded gives the same pickle in a protocol that has nothing to choose.
    if name != "Counter":
        assert pickle.dumps(pickle.loads(again), 2) == pickle.dumps(pickle.loads(data), 2)


@pytest.mark.parametrize("protocol", range(2, 6))
def test_slots(protocol: int) -> None:
    """State that is a pair of attributes and slots survives."""
    data = pickle.dumps(Slotted(), protocol)
    assert opcodes(rewritten(data, protocol)) == opcodes(data)
    assert pickle.loads(rewritten(data, protocol)) == Slotted()


def test_memo_at_work_is_written_byte_for_byte() -> None:
    """Protocol 2 has neither frames nor choice: the bytes are the same."""
    data = pickle.dumps(SAMPLES["many memo entries"], 2)
    assert rewritten(data, 2) == data


atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False),
    st.text(st.characters()),
    st.binary(),
)
trees = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.lists(inner),
        st.lists(inner).map(tuple),
        st.dictionaries(st.text() | st.integers(), inner),
        st.lists(inner).map(lambda items: [items, items]),
        st.lists(inner).map(collections.deque),
        st.dictionaries(st.text(), inner).map(collections.OrderedDict),
        st.frozensets(atoms),
    ),
    max_leaves=20,
)


@settings(max_examples=150, deadline=None)
@given(value=trees, protocol=st.sampled_from(list(PROTOCOLS)))
def test_any_value_survives(value: object, protocol: int) -> None:
    """Whatever Python values hypothesis makes come back equal, with the same opcodes."""
    data = pickle.dumps(value, protocol)
    again = rewritten(data, protocol)
    assert opcodes(again) == opcodes(data)
    assert pickle.loads(again) == value


def test_bytes_after_the_pickle_are_left() -> None:
    """Several pickles may follow each other."""
    first = pickle.dumps([1], 2)
    _, used = parse(first + b"more", where="x")
    assert used == len(first)


@pytest.mark.parametrize(
    ("head", "protocol"), [(b"\x80\x02.", 2), (b"\x80\x05.", 5), (b"(dp0\n.", 1), (b"", 1)]
)
def test_protocol_of(head: bytes, protocol: int) -> None:
    """The protocol is what the pickle says, 1 where it says nothing."""
    assert protocol_of(head) == protocol


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "x: pickle without end at byte 0"),
        (b"\x80\x02]", "pickle without end at byte 3"),
        (b"\x80\x06N.", "opcode PROTO at byte 0: protocol 6; 0 to 5 can be read"),
        (b"\x82\x01.", "opcode EXT1 at byte 0: not an opcode"),
        (b"\x97.", "opcode NEXT_BUFFER at byte 0: not an opcode"),
        (b"N\x98.", "opcode READONLY_BUFFER at byte 1: not an opcode"),
        (b"\xff.", "opcode 0xff at byte 0: not an opcode"),
        (b"\x95\xff\0\0\0\0\0\0\0N.", "frame of 255 bytes where 2 are left"),
        (b"X\xff\xff\xff\xffabc", "claims 4294967295 bytes where 3 are left"),
        (b"\x8d" + b"\xff" * 8 + b"abc", "where 3 are left"),
        (b"X\x01\0\0\0\xff.", "its argument makes no sense"),
        (b"J\0\0", "cut off or damaged"),
        (b"Iabc\n.", "its argument makes no sense"),
        (b"Sabc\n.", "string without its quotes"),
        (b"V never ends", "line without end"),
        (b"h\x05.", "memo entry 5 was never made"),
        (b"p0\n.", "cut off or damaged"),
        (b"Np-1\n.", "negative memo index"),
        (b"N\x86.", "the stack is too short"),
        (b"a.", "the stack is too short"),
        (b"t.", "no mark on the stack"),
        (b"N(.", "exactly one object"),
        (b"NN.", "exactly one object"),
        (b".", "exactly one object"),
        (b"(Nd.", "a key without a value"),
        (b"}(Nu.", "a key without a value"),
        (b"K\x01Na.", "done to atom, which cannot take it"),
        (b"}Na.", "done to dict, which cannot take it"),
        (b"]Nb.", "done to list, which cannot take it"),
        (b"c\nx\n.", "a class without a name"),
        (b"K\x01K\x02\x93.", "module and name must be strings"),
        (b"cos\nsystem\nNR.", "arguments must be a tuple"),
        (b"(o.", "no class above the mark"),
        (b"0.", "no mark on the stack"),
    ],
)
def test_what_breaks_the_rules(data: bytes, message: str) -> None:
    """Each broken rule has its message, with opcode and place."""
    with pytest.raises(FormatError, match=message):
        parse(data, where="x")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b")" + b"\x85" * 100_000 + b".", "nested deeper than 256"),
        (b"]" * 5000 + b"a" * 4999 + b".", "nested deeper than 256"),
        (b"(" * 5000, "more than 1000 marks"),
        (b"(" * 900 + b"0" * 900 + b"N.", "thrown away inside of others"),
        (b"\x8b\xff\xff\xff\x7f.", "integer of 2147483647 bytes"),
        (b"I" + b"9" * 5000 + b"\n.", "line of more than 2500 bytes"),
    ],
    ids=["tuples", "lists", "marks", "drops", "integer", "digits"],
)
def test_limits(data: bytes, message: str) -> None:
    """What no honest file claims is refused before it costs anything."""
    with pytest.raises(LimitError, match=message):
        parse(data, where="x")


def test_depth_through_the_memo() -> None:
    """Lists put into each other by way of the memo, from the outside in, are no way out."""
    count = 400
    made = b"".join(b"]r" + i.to_bytes(4, "little") + b"0" for i in range(count))
    joined = b"".join(
        b"j" + i.to_bytes(4, "little") + b"j" + (i + 1).to_bytes(4, "little") + b"a0"
        for i in range(count - 1)
    )
    with pytest.raises(LimitError, match="nested deeper"):
        parse(b"\x80\x02" + made + joined + b"j\0\0\0\0.", where="x")


def test_size_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes and opcodes have limits of their own."""
    monkeypatch.setattr(PickleLimits, "BYTES", 10)
    with pytest.raises(LimitError, match="pickle of 20 bytes; at most 10"):
        parse(b"N" * 20, where="x")
    monkeypatch.setattr(PickleLimits, "OPCODES", 5)
    with pytest.raises(LimitError, match="more than 5 opcodes"):
        parse(b"N0" * 4, where="x")


def test_mutated_pickles_end_in_an_error_or_an_answer() -> None:
    """Bytes changed at random never end in anything but a result or a FormatError."""
    rng = random.Random(0)
    bases = [pickle.dumps(SAMPLES[n], p) for n in SAMPLES if "long" not in n for p in PROTOCOLS]
    outcomes = collections.Counter[str]()
    for _ in range(2000):
        data = bytearray(rng.choice(bases)[:4000])
        for _ in range(rng.randint(1, 4)):
            _mutate(data, rng)
        try:
            root, _ = parse(bytes(data), where="x")
        except FormatError as error:
            outcomes["refused"] += 1
            outcomes["several lines"] += "\n" in str(error)
            continue
        outcomes["read"] += 1
        parse(emit(root, 4), where="again")
    assert min(outcomes["refused"], outcomes["read"]) > 100
    assert not outcomes["several lines"]


def _mutate(data: bytearray, rng: random.Random) -> None:
    where = rng.randrange(len(data)) if data else 0
    what = rng.randrange(4)
    if what == 0 and data:
        data[where] = rng.randrange(256)
    elif what == 1:
        data[where:where] = bytes([rng.choice(b"().0123tu}]seaRobcQq\x85\x86\x94h")])
    elif what == 2:
        del data[where : where + rng.randint(1, 5)]
    else:
        data[where:where] = data[where : where + rng.randint(1, 30)]

"""Plain values as JSON and back: every type survives, any other tree is decoded or refused."""

from __future__ import annotations

import collections
import enum
import io
import json
import math
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from liontool.checkpoint import tagged_decode
from liontool.checkpoint.tagged_tree import MAX_DEPTH, Json, KeyPath, decode, encode, unknown
from liontool.errors import FormatError, LimitError, StateTypeError
from liontool.resume.difference import difference


class _NoLeaves:
    """Knows no further types."""

    def encode(self, value: object, path: KeyPath) -> Json | None:
        return None

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        raise unknown(kind, path)


NONE = _NoLeaves()


def _there_and_back(value: Any) -> Any:
    text = json.dumps(encode(value, NONE), allow_nan=False)
    return decode(json.loads(text), NONE)


class _Colour(enum.IntEnum):
    RED = 1


class _Text(str):
    pass


class _Thing:
    pass


_Point = collections.namedtuple("_Point", "x y")

# --- round trips --------------------------------------------------------------------------------

_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**600, max_value=10**700)
    | st.floats()
    | st.complex_numbers()
    | st.binary(max_size=20)
    | st.text(st.characters(), max_size=8)
    | st.sampled_from(["$dict", "$", "$tuple", "\ud800"])
)
_HASHABLES = st.recursive(
    _ATOMS,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=6,
)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    pairs = st.dictionaries(_HASHABLES, inner, max_size=4)
    named = st.dictionaries(st.text(max_size=4) | st.just("$set"), inner, max_size=3)
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.lists(inner, max_size=4).map(deque),
        st.lists(inner, max_size=4).map(lambda items: deque(items, 4)),
        st.binary(max_size=9).map(bytearray),
        st.sets(_HASHABLES, max_size=4),
        named,
        pairs,
        pairs.map(OrderedDict),
        pairs.map(lambda items: defaultdict(list, items)),
        st.lists(_HASHABLES, max_size=5).map(Counter),
    )


@settings(max_examples=300, deadline=None)
@given(st.recursive(_HASHABLES, _containers, max_leaves=12))
def test_every_plain_value_survives(value: Any) -> None:
    """Types, signs of zero, orders and lone surrogates come back."""
    assert difference(_there_and_back(value), value) is None


@pytest.mark.parametrize(
    "value",
    [
        10**20_000,
        -(10**20_000),
        2**2048,
        -0.0,
        5e-324,
        sys.float_info.max,
        True,
        {1: "int", "1": "text"},
        {True: 0},
        {None: 0, 1.5: 1, (1, "a"): 2, b"x": 3},
        {"$dict": []},
        {"$dict": [], "other": 1},
        {"": {}},
        deque([1, 2], 5),
        deque(maxlen=0),
        defaultdict(None, {1: 2}),
        defaultdict(int, {"a": 1}),
        OrderedDict([("b", 1), ("a", 2)]),
        Counter({"a": -1, "b": 0}),
        frozenset([frozenset([1]), (2, 3)]),
        {float("nan")},
    ],
    ids=lambda value: f"{type(value).__name__}",
)
def test_chosen_values_survive(value: Any) -> None:
    """What has been lost by one format or another comes back as it was."""
    assert difference(_there_and_back(value), value) is None


def test_an_attribute_of_state_dicts_survives() -> None:
    """torch hangs the versions of its modules on the OrderedDict of a model."""
    state: Any = OrderedDict(weight=1)
    state._metadata = OrderedDict({"": {"version": 2}})
    made = _there_and_back({"model": state})
    assert made["model"]._metadata[""] == {"version": 2}
    assert type(made["model"]._metadata) is OrderedDict


def test_what_json_has_is_not_tagged() -> None:
    """Plain JSON stays plain JSON, so that people can read it."""
    value = {"a": [1, 2.5, "x", None, True], "b": {"c": {}}}
    assert encode(value, NONE) == value


def test_a_tree_is_written_as_it_always_was() -> None:
    """Checkpoints of this version open with the next one."""
    metadata: Any = OrderedDict(w=1)
    metadata._metadata = {}
    value = {
        "ints": [10**700, 1],
        "floats": [math.inf, -math.inf, math.nan, -0.0, 1e-7],
        "complex": 1 - math.inf * 1j,
        "bytes": [b"\0x", bytearray(b"y")],
        "lists": [(1, ()), {2}, frozenset([3]), deque([4], 5), deque()],
        "dicts": [{6: 7}, {"$a": 8}, {"$a": 8, "b": 9}, OrderedDict(c=1), Counter("d")],
        "more": [metadata, defaultdict(list, {(1,): []}), defaultdict(None)],
    }
    expected = f"""
        {{"ints": [{{"$int": "{10**700:#x}"}}, 1],
         "floats": [{{"$float": "inf"}}, {{"$float": "-inf"}}, {{"$float": "nan"}}, -0.0, 1e-07],
         "complex": {{"$complex": [{{"$float": "nan"}}, {{"$float": "-inf"}}]}},
         "bytes": [{{"$bytes": "AHg="}}, {{"$bytearray": "eQ=="}}],
         "lists": [{{"$tuple": [1, {{"$tuple": []}}]}}, {{"$set": [2]}}, {{"$frozenset": [3]}},
                   {{"$deque": [5, [4]]}}, {{"$deque": [null, []]}}],
         "dicts": [{{"$dict": [[6, 7]]}}, {{"$dict": [["$a", 8]]}}, {{"$a": 8, "b": 9}},
                   {{"$ordered": [["c", 1]]}}, {{"$counter": [["d", 1]]}}],
         "more": [{{"$state_dict": [[["w", 1]], {{}}]}},
                  {{"$defaultdict": ["list", [[{{"$tuple": [1]}}, []]]]}},
                  {{"$defaultdict": ["none", []]}}]}}
    """
    assert json.dumps(encode(value, NONE)) == json.dumps(json.loads(expected))


def test_encoding_copies() -> None:
    """The tree shares no container with the state, which goes on changing."""
    value = {"a": [1, {"b": 2}]}
    tree = encode(value, NONE)
    value["a"][1]["b"] = 3
    assert tree == {"a": [1, {"b": 2}]}


# --- what cannot be kept ------------------------------------------------------------------------


def _local() -> None:
    pass


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (lambda: None, r"^a\.b\.0: a checkpoint cannot keep .*<lambda>; give it a name at the top"),
        (_Thing(), r"^a\.b\.0: a checkpoint cannot keep .*_Thing; have state_dict\(\) return"),
        (_Colour.RED, r"^a\.b\.0: a checkpoint cannot keep .*_Colour; save its \.value"),
        (_Point(1, 2), r"^a\.b\.0: a checkpoint cannot keep .*_Point; save tuple\(it\)"),
        (_Text("x"), r"^a\.b\.0: a checkpoint cannot keep .*_Text; save str\(it\)"),
        (io.StringIO(), r"^a\.b\.0: a checkpoint cannot keep _io\.StringIO; save the position"),
        (defaultdict(_local), r"^a\.b\.0: .*defaultdict; its factory is not one of Python's"),
        (range(3), r"^a\.b\.0: a checkpoint cannot keep range;"),
        ({_Thing(): 1}, r"^a\.b\.0\.keys: .*_Thing as a key or in a set"),
        ({1: {_Text("k"): 1}}, r"^a\.b\.0\.1\.keys: .*_Text as a key or in a set"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_other_types_are_refused_by_path(value: Any, message: str) -> None:
    """The message has the path, the type and the way out."""
    with pytest.raises(StateTypeError, match=message) as caught:
        encode({"a": {"b": [value]}}, NONE)
    assert "\n" not in str(caught.value)


def test_other_attributes_are_refused() -> None:
    """What else hangs on an OrderedDict would be lost."""
    state: Any = OrderedDict(a=1)
    state.note = "x"
    with pytest.raises(StateTypeError, match=r"^s: .*OrderedDict with the attributes note; "):
        encode({"s": state}, NONE)


def test_a_value_that_holds_itself_is_refused() -> None:
    """The message ends, and so does the search."""
    loop: list[Any] = []
    loop.append({"again": loop})
    with pytest.raises(StateTypeError, match=r"0\.again.* or holds itself; have state_dict\(\)"):
        encode({"a": loop}, NONE)


def test_lists_that_share_lists_are_refused_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty small lists can stand for billions of values."""
    monkeypatch.setattr("liontool.checkpoint.tagged_encode.MAX_VALUES", 10_000)
    value: Any = 1.5
    for _ in range(40):
        value = [value, value]
    with pytest.raises(
        StateTypeError, match=r"more than 10,000 values up to here; keep long lists"
    ):
        encode({"a": value}, NONE)


@pytest.mark.parametrize("value", [[], (), {}, {1: 2}, frozenset(), deque(), OrderedDict()])
def test_the_deepest_that_is_written_is_read(value: Any) -> None:
    """Encoder and decoder have the same limit."""
    wrap: dict[type, Callable[[Any], Any]] = {
        tuple: lambda inner: (inner,),
        dict: lambda inner: {1: inner} if value else {"a": inner},
        frozenset: lambda inner: frozenset([inner]),
        deque: lambda inner: deque([inner]),
        OrderedDict: lambda inner: OrderedDict({1: inner}),
        list: lambda inner: [inner],
    }
    made = value
    for _ in range(MAX_DEPTH - 1 - bool(value)):
        made = wrap[type(value)](made)
    assert difference(_there_and_back(made), made) is None
    with pytest.raises(StateTypeError, match=f"deeper than {MAX_DEPTH} containers"):
        encode(wrap[type(value)](wrap[type(value)](made)), NONE)


def test_a_deep_caller_gets_the_same_errors() -> None:
    """Where Python's stack ends early, that is one line too."""

    def deep(calls: int, then: Callable[[], object]) -> object:
        return deep(calls - 1, then) if calls else then()

    value: Any = 1
    for _ in range(MAX_DEPTH - 1):
        value = (value,)
    tree = encode(value, NONE)
    calls = sys.getrecursionlimit() - len(_stack()) - 100
    with pytest.raises(StateTypeError, match="nested deeper"):
        deep(calls, lambda: encode(value, NONE))
    with pytest.raises(LimitError, match="nested deeper"):
        deep(calls, lambda: decode(tree, NONE))


def _stack() -> list[Any]:
    frame, frames = sys._getframe(), []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back  # type: ignore[assignment]
    return frames


# --- strangers' trees ---------------------------------------------------------------------------

KINDS = [
    "$int", "$float", "$complex", "$bytes", "$bytearray", "$tuple", "$set", "$frozenset", "$deque",
    "$dict", "$ordered", "$counter", "$state_dict", "$defaultdict",
]  # fmt: skip


def test_every_kind_is_tried_and_documented() -> None:
    """The page on the folder of a run says what each of them is."""
    page = Path(__file__).parents[2].joinpath("docs", "run-folder.md").read_text()
    leaves = ["$tensor", "$ndarray", "$numpy", "$size", "$dtype", "$device", "$live"]
    assert set(tagged_decode._DECODERS) == set(KINDS)
    assert [kind for kind in [*KINDS, *leaves] if f"`{kind}`" not in page] == []


_JSON_ATOMS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["nan", "list", "0xff", "QUJD", *KINDS])
)


def json_trees(kinds: list[str]) -> st.SearchStrategy[Any]:
    """Any JSON, often with what looks like a tag."""

    def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        pair = st.tuples(inner, inner).map(list)
        payload = inner | st.lists(inner, max_size=3) | pair | st.lists(pair, max_size=3)
        return st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(st.text(max_size=4), inner, max_size=3),
            st.tuples(st.sampled_from(kinds), payload).map(lambda tag: dict([tag])),
        )

    return st.recursive(_JSON_ATOMS, wider, max_leaves=20)


@settings(max_examples=600, deadline=None)
@given(json_trees([*KINDS, "$tensor", "$what"]))
@example({"$set": [[1]]})
@example({"$dict": [[{"$tuple": [{"$set": []}]}, 1]]})
def test_any_json_is_decoded_or_refused(tree: Any) -> None:
    """Nothing but a FormatError of one line comes out, and what is decoded can be encoded."""
    try:
        value = decode(tree, NONE, "state-0.json")
    except FormatError as error:
        found = str(error)
    else:
        found = f"state-0.json: {difference(_there_and_back(value), value)}"
    assert found == "state-0.json: None" or re.fullmatch(r"state-0\.json: .*: .*", found)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({"$int": "12"}, "'\\$int' must be hexadecimal digits"),
        ({"$int": 12}, "'\\$int' must be hexadecimal digits"),
        ({"$float": "1.0"}, "'\\$float' must be one of inf, -inf, nan"),
        ({"$float": []}, "'\\$float' must be one of"),
        ({"$complex": [1.0]}, "\\$complex must be a list of two"),
        ({"$complex": [1, 2]}, "'\\$complex' must be two floats"),
        ({"$bytes": "?"}, "bytes must be base64"),
        ({"$bytes": "ä"}, "bytes must be base64"),
        ({"$bytearray": 3}, "bytes must be base64"),
        ({"$tuple": {}}, "must hold a list"),
        ({"$set": [1, 1]}, "a key, or a value in a set, stands twice"),
        ({"$set": [1, True]}, "a key, or a value in a set, stands twice"),
        ({"$set": [[1]]}, "a key, or a value in a set, cannot be one"),
        ({"$dict": [[1, 2], [1, 3]]}, "a key, or a value in a set, stands twice"),
        ({"$dict": [[[], 2]]}, "a key, or a value in a set, cannot be one"),
        ({"$dict": [[1, 2, 3]]}, "a pair must be a list of two"),
        ({"$ordered": {"a": 1}}, "must hold a list"),
        ({"$deque": [1, [1, 2]]}, "'\\$deque' must be \\[longest or null, items\\]"),
        ({"$deque": [-1, []]}, "'\\$deque' must be"),
        ({"$deque": [10**30, []]}, "'\\$deque' must be"),
        ({"$defaultdict": ["eval", []]}, "'\\$defaultdict' must be made with one of none, int"),
        ({"$defaultdict": [None, []]}, "'\\$defaultdict' must be made with one of"),
        ({"$what": 1}, "holds a value of the unknown kind '\\$what'; a newer liontool"),
        (math.inf, "holds a number that JSON cannot hold"),
        ((1,), "holds tuple, which JSON has not"),
        ({1: 2}, "has a key that is no text"),
    ],
    ids=repr,
)
def test_a_broken_node_is_refused_by_path(node: Any, message: str) -> None:
    """The message has the file, the path and what is wrong."""
    with pytest.raises(FormatError, match=f"^f: a\\.0: {message}|^f: a\\.0.*: {message}"):
        decode({"a": [node]}, NONE, "f")


@pytest.mark.parametrize("kind", ["list", "object", "$tuple", "$dict", "$ordered", "$frozenset"])
def test_a_deep_tree_is_refused_in_time(kind: str) -> None:
    """No nesting reaches the end of Python's stack."""
    wrap: dict[str, Callable[[Any], Any]] = {
        "list": lambda inner: [inner],
        "object": lambda inner: {"a": inner},
        "$dict": lambda inner: {kind: [[1, inner]]},
        "$ordered": lambda inner: {kind: [["a", inner]]},
    }
    tree: Any = 1
    for _ in range(50_000):
        tree = wrap.get(kind, lambda inner: {kind: [inner]})(tree)
    try:
        with pytest.raises(LimitError, match=f"is nested deeper than {MAX_DEPTH} containers"):
            decode(tree, NONE)
    finally:
        _taken_apart(tree)


def _taken_apart(tree: Any) -> None:
    """Free a deep tree from the top, since Python would do it by recursion."""
    while isinstance(tree, (list, dict)):
        inner = next(iter(tree.values())) if isinstance(tree, dict) else tree[-1]
        tree.clear()
        tree = inner


@pytest.mark.parametrize("kind", ["$set", "$frozenset", "$dict", "$counter", "$ordered"])
def test_keys_of_one_hash_are_refused_in_time(kind: str) -> None:
    """A set of 100,000 of them would take minutes to make."""
    alike = [i * sys.hash_info.modulus for i in range(100_000)]
    payload = alike if kind.endswith("set") else [[key, 0] for key in alike]
    with pytest.raises(LimitError, match=r"more than 100 keys have the same hash, which liontool"):
        decode({kind: payload}, NONE)


def test_names_in_messages_are_safe_to_print() -> None:
    """Keys may come from strangers."""
    with pytest.raises(FormatError, match=r"^a\\x1b\[2J\.0: must hold a list"):
        decode({"a\x1b[2J": [{"$tuple": 1}]}, NONE)


def test_a_huge_key_does_not_break_the_message() -> None:
    """Python refuses to spell numbers of thousands of digits."""
    key = {"$int": hex(10**5000)}
    with pytest.raises(FormatError, match=r"^int: must hold a list"):
        decode({"$dict": [[key, {"$tuple": 1}]]}, NONE)

"""Plain Python values as JSON that says their types, and back.

Text, true, false, null, lists, objects with text keys, whole numbers and finite floats are what
they are in JSON. Everything else is an object with one key that begins with `$`:

  $int          "-0x1f...", more digits than JSON readers take     $float   "inf", "-inf", "nan"
  $complex      [real, imaginary]                                  $bytes   base64
  $bytearray    base64                                             $tuple   [item, ...]
  $set          [item, ...]                                        $frozenset  [item, ...]
  $deque        [longest or null, [item, ...]]
  $dict         [[key, value], ...], where a key is no text, or where one key begins with `$`
  $ordered      [[key, value], ...], an OrderedDict                $counter [[key, count], ...]
  $state_dict   [[[key, value], ...], metadata], a module's OrderedDict with its `_metadata`
  $defaultdict  ["list" or another factory, [[key, value], ...]]

`Leaves` add more: $tensor, $ndarray, $numpy, $dtype, $device, $size, $live. A type that is in no
table is an error, and so is a subclass: nothing is flattened in silence. Decoding makes only what
the tables say, to a limited depth; no name in a file is ever looked up or called.
"""

from __future__ import annotations

import base64
import math
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TypeAlias, TypeVar

from liontool.checkpoint.unkept import dotted, refused
from liontool.errors import FormatError, LimitError, StateTypeError

Json: TypeAlias = Any
KeyPath: TypeAlias = tuple[Any, ...]
_Filled = TypeVar("_Filled", bound=dict[Any, Any])

MAX_DEPTH = 64
"""Containers in containers."""
MAX_VALUES = 10_000_000
"""Values in one state; more belong into a tensor."""

_PLAIN_BITS = 2048
_PLAIN_INT = 1 << _PLAIN_BITS
_HEX = re.compile(r"-?0x[0-9a-f]+")
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_SAME = frozenset({str, bool, type(None)})
# Equal ones may be different objects, and a live one is only known by its place.
_UNHASHED = frozenset({"$tensor", "$live"})

FACTORIES: Mapping[str, Callable[[], Any] | None] = {
    "none": None, "int": int, "float": float, "bool": bool, "str": str, "bytes": bytes,
    "list": list, "dict": dict, "set": set, "tuple": tuple,
    "OrderedDict": OrderedDict, "Counter": Counter, "deque": deque,
}  # fmt: skip
"""What a defaultdict may be made with."""


class Leaves(Protocol):
    """What a live state and a file on disk do differently."""

    def encode(self, value: object, path: KeyPath) -> Json | None:
        """The node of a value that is in no table here; None where it is not known either."""

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        """The value of a node `{kind: payload}`; `unknown` is what to raise for other kinds."""


def encode(value: object, leaves: Leaves, path: KeyPath = ()) -> Json:
    """`value` as a tree for `json.dumps(tree, allow_nan=False)`.

    Args:
        value: The state.
        leaves: Encodes tensors and the like.
        path: Where the value stands, for messages.

    Raises:
        StateTypeError: There is a value of another type, or too much; names its path.
    """
    encoding = _Encoding(leaves, path)
    try:
        return encoding.node(value)
    except RecursionError:  # the caller is deep in calls already
        raise encoding.too_deep() from None


def decode(node: Json, leaves: Leaves, where: str = "", path: KeyPath = ()) -> Any:
    """The value that `encode` made `node` of.

    Args:
        node: Any JSON: it may come from a stranger.
        leaves: Decodes tensors and the like.
        where: The file, for messages.
        path: Where the value stands, for messages.

    Raises:
        FormatError: It is no tagged tree; names the path.
        LimitError: It is nested deeper than `encode` ever does.
    """
    decoding = _Decoding(leaves, path)
    try:
        return decoding.outermost(node)
    except FormatError as error:
        raise type(error)(f"{where}: {error}") if where else error from None


def malformed(path: KeyPath, what: str) -> FormatError:
    """The error for a node that `encode` cannot have written."""
    return FormatError(f"{dotted(path)}: {what}; the file was damaged or not written by liontool")


def unknown(kind: str, path: KeyPath) -> FormatError:
    """The error for a kind that nobody knows."""
    return FormatError(
        f"{dotted(path)}: holds a value of the unknown kind '{dotted((kind,))}'; "
        "a newer liontool may have written it: pip install -U liontool"
    )


def object_node(pairs: Sequence[Sequence[Json]]) -> Json:
    """The node of a dict, given as nodes of its keys and values; text is its own node."""
    if all(type(key) is str for key, _ in pairs):
        made: dict[str, Json] = {key: node for key, node in pairs}  # noqa: C416 - lists are no items
        if not looks_tagged(made):
            return made
    return {"$dict": [list(pair) for pair in pairs]}


def looks_tagged(mapping: Mapping[Any, Any]) -> bool:
    """Whether it has one key, and that begins with `$`."""
    if len(mapping) != 1:
        return False
    (key,) = mapping
    return type(key) is str and key.startswith("$")


class _Encoding:
    """One call of `encode`."""

    def __init__(self, leaves: Leaves, path: KeyPath) -> None:
        self._leaves = leaves
        self._path = list(path)
        self._most = len(path) + MAX_DEPTH
        self._left = MAX_VALUES
        self._hashed = False

    def node(self, value: object) -> Json:
        kind = type(value)
        if kind in _SAME:
            return value
        way = _ENCODERS.get(kind)
        return self._leaf(value) if way is None else way(self, value)

    def _leaf(self, value: object) -> Json:
        path = tuple(self._path)
        node = self._leaves.encode(value, path)
        if node is None or (self._hashed and not _UNHASHED.isdisjoint(node)):
            raise refused(value, path, hashed=self._hashed)
        return node

    def int_(self, value: int) -> Json:
        return value if -_PLAIN_INT < value < _PLAIN_INT else {"$int": hex(value)}

    def float_(self, value: float) -> Json:
        return value if math.isfinite(value) else {"$float": repr(value)}

    def complex_(self, value: complex) -> Json:
        return {"$complex": [self.float_(value.real), self.float_(value.imag)]}

    def bytes_(self, value: bytes) -> Json:
        return {"$bytes": base64.b64encode(value).decode()}

    def bytearray_(self, value: bytearray) -> Json:
        return {"$bytearray": base64.b64encode(value).decode()}

    def list_(self, value: list[object]) -> Json:
        return self._items(value, len(value))

    def tuple_(self, value: tuple[object, ...]) -> Json:
        return {"$tuple": self._items(value, len(value))}

    def deque_(self, value: deque[object]) -> Json:
        return {"$deque": [value.maxlen, self._items(value, len(value))]}

    def set_(self, value: set[object]) -> Json:
        return {"$set": self._hashables(value)}

    def frozenset_(self, value: frozenset[object]) -> Json:
        return {"$frozenset": self._hashables(value)}

    def dict_(self, value: dict[object, object]) -> Json:
        return object_node(self._pairs(value))

    def counter_(self, value: Counter[object]) -> Json:
        return {"$counter": self._pairs(value)}

    def ordered_(self, value: OrderedDict[object, object]) -> Json:
        attributes = vars(value)
        if not attributes:
            return {"$ordered": self._pairs(value)}
        if attributes.keys() != {"_metadata"}:
            raise refused(value, tuple(self._path), attributes=attributes)
        pairs = self._pairs(value)
        with self._below("_metadata", 1):
            return {"$state_dict": [pairs, self.node(attributes["_metadata"])]}

    def defaultdict_(self, value: defaultdict[object, object]) -> Json:
        for name, factory in FACTORIES.items():
            if factory is value.default_factory:
                return {"$defaultdict": [name, self._pairs(value)]}
        raise refused(value, tuple(self._path))

    def _items(self, value: Iterable[object], count: int) -> list[Json]:
        with self._below(None, count):
            return [
                item if type(item) in _SAME else self._item(i, item) for i, item in enumerate(value)
            ]

    def _item(self, i: int, item: object) -> Json:
        self._path[-1] = i
        return self.node(item)

    def _pairs(self, value: Mapping[Any, object]) -> list[list[Json]]:
        path = self._path
        self._count(len(value))
        path.append(None)
        made: list[list[Json]] = []
        for key, item in value.items():
            name = self._key(key)
            path[-1] = key
            made.append([name, item if type(item) in _SAME else self.node(item)])
        path.pop()
        return made

    def _key(self, key: object) -> Json:
        if type(key) in _SAME:
            return key
        self._path[-1] = "keys"
        with self._hashing():
            return self.node(key)

    def _hashables(self, value: Iterable[object]) -> list[Json]:
        items = list(value)
        with self._hashing():
            return self._items(items, len(items))

    @contextmanager
    def _hashing(self) -> Iterator[None]:
        before, self._hashed = self._hashed, True
        yield
        self._hashed = before

    @contextmanager
    def _below(self, key: object, count: int) -> Iterator[None]:
        self._count(count)
        self._path.append(key)
        yield
        self._path.pop()

    def _count(self, count: int) -> None:
        self._left -= count
        if len(self._path) >= self._most:
            raise self.too_deep()
        if self._left < 0:
            raise StateTypeError(
                f"{dotted(self._path)}: the state holds more than {MAX_VALUES:,} values up to "
                "here; keep long lists of numbers in a tensor"
            )

    def too_deep(self) -> StateTypeError:
        return StateTypeError(
            f"{dotted(self._path)}: is nested deeper than {MAX_DEPTH} containers, or holds itself; "
            "have state_dict() return less of it"
        )


_ENCODERS: Mapping[type, Callable[[_Encoding, Any], Json]] = {
    int: _Encoding.int_, float: _Encoding.float_, complex: _Encoding.complex_,
    bytes: _Encoding.bytes_, bytearray: _Encoding.bytearray_,
    list: _Encoding.list_, tuple: _Encoding.tuple_, deque: _Encoding.deque_,
    set: _Encoding.set_, frozenset: _Encoding.frozenset_,
    dict: _Encoding.dict_, OrderedDict: _Encoding.ordered_,
    Counter: _Encoding.counter_, defaultdict: _Encoding.defaultdict_,
}  # fmt: skip


class _Decoding:
    """One call of `decode`; trusts nothing."""

    def __init__(self, leaves: Leaves, path: KeyPath) -> None:
        self._leaves = leaves
        self._path = list(path)
        self._most = len(path) + MAX_DEPTH
        self._hashed = False

    def outermost(self, node: Json) -> Any:
        try:
            return self.value(node)
        except RecursionError:  # the caller is deep in calls already
            raise self._too_deep() from None

    def value(self, node: Json) -> Any:
        kind = type(node)
        if kind in _SAME or kind is int:
            return node
        if kind is float:
            return self._finite(node)
        if kind is list:
            return self._items(node)
        if kind is dict:
            return self._object(node)
        raise self._malformed(f"holds {kind.__name__}, which JSON has not")

    def _finite(self, node: float) -> float:
        if math.isfinite(node):
            return node
        raise self._malformed("holds a number that JSON cannot hold")

    def _object(self, node: dict[str, Json]) -> Any:
        if looks_tagged(node):
            ((kind, payload),) = node.items()
            way = _DECODERS.get(kind)
            return self._leaf(kind, payload) if way is None else way(self, payload)
        made = {}
        self._enter()
        for key, item in node.items():
            if type(key) is not str:
                raise self._malformed("has a key that is no text")
            self._path[-1] = key
            made[key] = self.value(item)
        self._path.pop()
        return made

    def _leaf(self, kind: str, payload: Json) -> object:
        path = tuple(self._path)
        if self._hashed and kind in _UNHASHED:
            raise malformed(path, f"'{kind}' can be no key and in no set")
        return self._leaves.decode(kind, payload, path)

    def int_(self, payload: Json) -> int:
        if type(payload) is not str or not _HEX.fullmatch(payload):
            raise self._malformed("'$int' must be hexadecimal digits")
        return int(payload, 16)

    def float_(self, payload: Json) -> float:
        if type(payload) is not str or payload not in _FLOATS:
            raise self._malformed(f"'$float' must be one of {', '.join(_FLOATS)}")
        return _FLOATS[payload]

    def complex_(self, payload: Json) -> complex:
        parts = [self.value(part) for part in self._two("$complex", payload)]
        if [type(part) for part in parts] != [float, float]:
            raise self._malformed("'$complex' must be two floats")
        return complex(*parts)

    def bytes_(self, payload: Json) -> bytes:
        try:
            return base64.b64decode(payload.encode("ascii"), validate=True)
        except (ValueError, AttributeError):
            raise self._malformed("bytes must be base64") from None

    def bytearray_(self, payload: Json) -> bytearray:
        return bytearray(self.bytes_(payload))

    def tuple_(self, payload: Json) -> tuple[Any, ...]:
        return tuple(self._items(payload))

    def deque_(self, payload: Json) -> deque[Any]:
        longest, items = self._two("$deque", payload)
        made = self._items(items)
        if longest is not None and (
            type(longest) is not int or not len(made) <= longest <= sys.maxsize
        ):
            raise self._malformed("'$deque' must be [longest or null, items], no more than that")
        return deque(made, longest)

    def set_(self, payload: Json) -> set[Any]:
        items = self._hashables(payload)
        made = set(items)
        if len(made) != len(items):
            raise self._malformed("a set holds a value twice")
        return made

    def frozenset_(self, payload: Json) -> frozenset[Any]:
        return frozenset(self.set_(payload))

    def dict_(self, payload: Json) -> dict[Any, Any]:
        made: dict[Any, Any] = {}
        return self._filled(made, payload)

    def ordered_(self, payload: Json) -> OrderedDict[Any, Any]:
        made: OrderedDict[Any, Any] = OrderedDict()
        return self._filled(made, payload)

    def counter_(self, payload: Json) -> Counter[Any]:
        made: Counter[Any] = Counter()
        return self._filled(made, payload)

    def state_dict_(self, payload: Json) -> OrderedDict[Any, Any]:
        pairs, metadata = self._two("$state_dict", payload)
        made = self.ordered_(pairs)
        self._enter("_metadata")
        made._metadata = self.value(metadata)  # type: ignore[attr-defined]
        self._path.pop()
        return made

    def defaultdict_(self, payload: Json) -> defaultdict[Any, Any]:
        name, pairs = self._two("$defaultdict", payload)
        if type(name) is not str or name not in FACTORIES:
            raise self._malformed(f"'$defaultdict' must be made with one of {', '.join(FACTORIES)}")
        made: defaultdict[Any, Any] = defaultdict(FACTORIES[name])
        return self._filled(made, pairs)

    def _filled(self, made: _Filled, payload: Json) -> _Filled:
        pairs = self._list(payload)
        self._enter("keys")
        for pair in pairs:
            self._path[-1] = "keys"
            first, second = self._two("a pair", pair)
            key = first if type(first) is str else self._key(first)
            self._path[-1] = key
            size = len(made)
            made[key] = self.value(second)
            if len(made) == size:
                raise self._malformed("a key stands twice")
        self._path.pop()
        return made

    def _key(self, node: Json) -> Any:
        before, self._hashed = self._hashed, True
        key = self.value(node)
        self._hashed = before
        self._check_hashes([key])
        return key

    def _hashables(self, payload: Json) -> list[Any]:
        before, self._hashed = self._hashed, True
        items = self._items(payload)
        self._hashed = before
        self._check_hashes(items)
        return items

    def _check_hashes(self, items: list[Any]) -> None:
        try:
            set(items)
        except (TypeError, ValueError):  # lists have no hash, numpy's dates are equal to no tuple
            raise self._malformed("a key, or a value in a set, cannot be one") from None

    def _items(self, payload: Json) -> list[Any]:
        items = self._list(payload)
        self._enter()
        made = [
            item if type(item) in _SAME else self._item(i, item) for i, item in enumerate(items)
        ]
        self._path.pop()
        return made

    def _item(self, i: int, node: Json) -> Any:
        self._path[-1] = i
        return self.value(node)

    def _two(self, what: str, payload: Json) -> list[Json]:
        if type(payload) is list and len(payload) == 2:
            return payload
        raise self._malformed(f"{what} must be a list of two")

    def _list(self, payload: Json) -> list[Json]:
        if type(payload) is list:
            return payload
        raise self._malformed("must hold a list")

    def _enter(self, key: object = None) -> None:
        if len(self._path) >= self._most:
            raise self._too_deep()
        self._path.append(key)

    def _too_deep(self) -> LimitError:
        return LimitError(
            f"{dotted(self._path)}: is nested deeper than {MAX_DEPTH} containers, "
            "which liontool never writes"
        )

    def _malformed(self, what: str) -> FormatError:
        return malformed(tuple(self._path), what)


_DECODERS: Mapping[str, Callable[[_Decoding, Json], Any]] = {
    "$int": _Decoding.int_, "$float": _Decoding.float_, "$complex": _Decoding.complex_,
    "$bytes": _Decoding.bytes_, "$bytearray": _Decoding.bytearray_,
    "$tuple": _Decoding.tuple_, "$deque": _Decoding.deque_,
    "$set": _Decoding.set_, "$frozenset": _Decoding.frozenset_,
    "$dict": _Decoding.dict_, "$ordered": _Decoding.ordered_, "$counter": _Decoding.counter_,
    "$state_dict": _Decoding.state_dict_, "$defaultdict": _Decoding.defaultdict_,
}  # fmt: skip

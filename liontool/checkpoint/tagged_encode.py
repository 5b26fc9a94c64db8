"""From plain values to a tagged tree."""

from __future__ import annotations

import base64
import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from liontool.checkpoint.tagged_nodes import (
    FACTORIES,
    MAX_DEPTH,
    MAX_VALUES,
    SAME,
    UNHASHED,
    Json,
    KeyPath,
    Leaves,
    object_node,
)
from liontool.checkpoint.unkept import dotted, refused
from liontool.errors import StateTypeError

_PLAIN_INT = 1 << 2048  # JSON readers refuse numbers of thousands of digits


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
        if kind in SAME:
            return value
        way = _ENCODERS.get(kind)
        return self._leaf(value) if way is None else way(self, value)

    def _leaf(self, value: object) -> Json:
        path = tuple(self._path)
        node = self._leaves.encode(value, path)
        if node is None or (self._hashed and not UNHASHED.isdisjoint(node)):
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
                item if type(item) in SAME else self._item(i, item) for i, item in enumerate(value)
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
            made.append([name, item if type(item) in SAME else self.node(item)])
        path.pop()
        return made

    def _key(self, key: object) -> Json:
        if type(key) in SAME:
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

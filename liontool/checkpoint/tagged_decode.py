"""From a tagged tree, which may come from a stranger, to plain values."""

from __future__ import annotations

import base64
import math
import re
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from liontool.checkpoint.tagged_nodes import (
    FACTORIES,
    MAX_DEPTH,
    SAME,
    UNHASHED,
    Json,
    KeyPath,
    Leaves,
    looks_tagged,
    malformed,
)
from liontool.checkpoint.unkept import dotted
from liontool.errors import FormatError, LimitError

_HEX = re.compile(r"-?0x[0-9a-f]+")
_FLOATS = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_KEYS = "keys"  # stands in a path for the keys of a dict
_MOST_ALIKE = 100  # to look up one of n keys with one hash takes n comparisons
_Filled = TypeVar("_Filled", bound=dict[Any, Any])


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
        if kind in SAME or kind is int:
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
        if self._hashed and kind in UNHASHED:
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
        before, self._hashed = self._hashed, True
        items = self._items(payload)
        self._hashed = before
        made: dict[Any, None] = {}
        hashes: Counter[int] = Counter()
        for item in items:
            self._put(made, item, None, hashes)
        return set(made)

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
        hashes: Counter[int] = Counter()
        self._enter(_KEYS)
        for pair in pairs:
            self._path[-1] = _KEYS
            first, second = self._two("a pair", pair)
            key = first if type(first) is str else self._key(first)
            self._path[-1] = key
            self._put(made, key, self.value(second), hashes)
        self._path.pop()
        return made

    def _key(self, node: Json) -> Any:
        before, self._hashed = self._hashed, True
        key = self.value(node)
        self._hashed = before
        return key

    def _put(self, made: dict[Any, Any], key: Any, value: Any, hashes: Counter[int]) -> None:
        """Add an entry whose key is new, can be a key, and was not made to be slow to find."""
        size = len(made)
        try:
            hashes[hash(key)] += 1
            if hashes[hash(key)] > _MOST_ALIKE:
                raise LimitError(
                    f"{dotted(self._path)}: more than {_MOST_ALIKE} keys have the same hash, which "
                    "liontool never writes"
                )
            made[key] = value
        except (TypeError, ValueError):  # a list has no hash; numpy's dates are equal to no tuple
            raise self._malformed("a key, or a value in a set, cannot be one") from None
        if len(made) == size:
            raise self._malformed("a key, or a value in a set, stands twice")

    def _items(self, payload: Json) -> list[Any]:
        items = self._list(payload)
        self._enter()
        made = [item if type(item) in SAME else self._item(i, item) for i, item in enumerate(items)]
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

"""Where two trees of values differ: graphs with aliases and cycles, walked in step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import NamedTuple

from liontool.checkpoint.document import Opaque, TensorRef, Value, is_list
from liontool.inspect.places import short

MOST = 100
"""Differences that are told of one tree; a tree of another kind has no end of them."""


class Difference(NamedTuple):
    """A place in two trees, as people write it, and what is wrong there."""

    where: str
    text: str


class _Path(NamedTuple):
    """A place as a chain: deep trees would fill the memory with whole paths."""

    above: _Path | None
    key: str

    def __str__(self) -> str:
        keys: list[str] = []
        step: _Path | None = self
        while step is not None:
            keys.append(short(step.key))
            step = step.above
        return ".".join(reversed(keys))


def differences(
    found: Value,
    wanted: Value,
    *,
    exempt: Collection[tuple[int, int]] = (),
    told: Collection[int] = (),
    same_tensor: Callable[[TensorRef, TensorRef], bool] = lambda found, wanted: True,
) -> Iterator[Difference]:
    """At most `MOST` places where `found` is not as `wanted`.

    Args:
        found: A value, or the tree of a document.
        wanted: The same of the other one.
        exempt: Pairs of values, by their `id`, that are compared elsewhere.
        told: Tensors, by their `id`, of which it is said elsewhere that only one of the two has
            them.
        same_tensor: Tells whether two tensors are the same; by default they are.
    """
    walk = _Walk(exempt, told, same_tensor)
    for count, difference in enumerate(walk.differences(found, wanted)):
        if count == MOST:
            return
        yield difference


class _Walk:
    def __init__(
        self,
        exempt: Collection[tuple[int, int]],
        told: Collection[int],
        same_tensor: Callable[[TensorRef, TensorRef], bool],
    ) -> None:
        self._exempt = exempt
        self._told = told
        self._same_tensor = same_tensor
        self._classes: dict[int, int] = {}
        self._todo: list[tuple[_Path | None, Value, Value]] = []
        self._held: list[Value] = []  # an id is only good for as long as its value is there

    def differences(self, found: Value, wanted: Value) -> Iterator[Difference]:
        self._todo.append((None, found, wanted))
        while self._todo:
            path, found, wanted = self._todo.pop()
            if (id(found), id(wanted)) not in self._exempt:
                yield from self._pair(path, found, wanted)

    def _pair(self, path: _Path | None, found: Value, wanted: Value) -> Iterator[Difference]:
        if _kind(found) != _kind(wanted):
            yield _difference(path, f"is {_shown(found)}, and {_shown(wanted)} in the source")
        elif isinstance(found, TensorRef):
            if not self._same_tensor(found, wanted):
                yield _difference(path, "is another tensor than the source's")
        elif isinstance(found, (Mapping, Opaque)) or is_list(found):
            if self._joined(found, wanted):
                yield from self._inside(path, found, wanted)
        elif not _same_scalar(found, wanted):
            yield _difference(path, f"is {_shown(found)}, and {_shown(wanted)} in the source")

    def _joined(self, found: Value, wanted: Value) -> bool:
        """Whether two values were not known to go together: each pair is looked into once.

        Values that must be the same form a class, so that there are never more pairs than values,
        however often they stand in each other.
        """
        first, second = self._class(id(found)), self._class(id(wanted))
        self._classes[first] = second
        self._held += (found, wanted)
        return first != second

    def _class(self, name: int) -> int:
        while (above := self._classes.setdefault(name, name)) != name:
            self._classes[name] = self._classes[above]
            name = above
        return name

    def _inside(self, path: _Path | None, found: Value, wanted: Value) -> Iterator[Difference]:
        if isinstance(found, Mapping):
            yield from self._entries(path, found, wanted)
        elif isinstance(found, Opaque):
            self._todo.append((_Path(path, found.name), found.state, wanted.state))
            arguments = _Path(path, f"{found.name}()")
            self._todo.append((arguments, found.arguments, wanted.arguments))
        elif len(found) != len(wanted):
            yield _difference(path, f"has {len(found):,} items, {len(wanted):,} in the source")
        else:
            for i in reversed(range(len(found))):
                self._todo.append((_Path(path, str(i)), found[i], wanted[i]))

    def _entries(
        self, path: _Path | None, found: Mapping[Value, Value], wanted: Mapping[Value, Value]
    ) -> Iterator[Difference]:
        left, right = _by_key(found), _by_key(wanted)
        lost = [right[key] for key in right if key not in left]
        new = [left[key] for key in left if key not in right]
        yield from self._alone(path, wanted, lost, "is in the source and not here")
        yield from self._alone(path, found, new, "is here and not in the source")
        for key in reversed(list(left)):
            if key in right:
                place = _Path(path, _key(left[key]))
                self._todo.append((place, found[left[key]], wanted[right[key]]))

    def _alone(
        self, path: _Path | None, mapping: Mapping[Value, Value], keys: list[Value], text: str
    ) -> Iterator[Difference]:
        for key in keys:
            if id(mapping[key]) not in self._told:
                yield _difference(_Path(path, _key(key)), text)


def _by_key(mapping: Mapping[Value, Value]) -> dict[Value, Value]:
    """The keys by what they are found by; those that are no plain values by their turn."""
    turns = 0
    found: dict[Value, Value] = {}
    for key in mapping:
        if isinstance(key, Opaque):
            found[Opaque, key.name, turns] = key
            turns += 1
        else:
            found[type(key), key] = key
    return found


def _key(key: Value) -> str:
    return f"<{key.name}>" if isinstance(key, Opaque) else str(key)


def _kind(value: Value) -> Value:
    """What two values must share before it is worth looking into them."""
    if isinstance(value, TensorRef):
        return TensorRef
    if isinstance(value, Opaque):
        return Opaque, value.name
    kind = getattr(value, "kind", type(value).__name__)
    return kind if isinstance(kind, str) else ""


def _same_scalar(found: Value, wanted: Value) -> bool:
    """NaN is NaN here, and -0.0 is not 0.0: no number is allowed to change."""
    if isinstance(found, (float, complex)):
        return repr(found) == repr(wanted)
    return bool(found == wanted)


def _shown(value: Value) -> str:
    """A value for people: containers by what they are."""
    if isinstance(value, TensorRef):
        return f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Opaque):
        return short(f"<{value.name}>")
    if isinstance(value, Mapping) or is_list(value):
        return f"a {_kind(value)} of {len(value):,}"
    if isinstance(value, int) and value.bit_length() > 4096:
        return f"an integer of {value.bit_length():,} bits"
    return short(repr(value[:200]) if isinstance(value, (str, bytes)) else repr(value))


def _difference(path: _Path | None, text: str) -> Difference:
    return Difference("" if path is None else str(path), text)

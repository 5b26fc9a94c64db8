"""The configuration of a run, compared value by value with that of the checkpoint.

It is what `config=` was given: a mapping, a dataclass or an argparse.Namespace, nested as it likes.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from liontool.checkpoint.tagged_tree import Json, KeyPath, decode, encode, unknown
from liontool.errors import StateTypeError

_ABSENT = object()
_SHOWN = 60


def config_tree(config: Any, name: str = "config") -> Json:
    """A configuration as run.json keeps it; None stays None.

    Raises:
        StateTypeError: It holds something that cannot be compared; names its path.
    """
    if config is None:
        return None
    plain = _plain(config)
    if not isinstance(plain, dict):
        raise StateTypeError(
            f"{name} is a {type(config).__name__}; give a dict, a dataclass or a Namespace"
        )
    return encode(plain, _NoLeaves(), (name,))


def changes(saved: Json, live: Json) -> Iterator[tuple[str, str]]:
    """The path of each value that differs, without "config.", and words for what it was and is."""
    for path, old, new in _differences((), _decoded(saved), _decoded(live)):
        yield ".".join(map(str, path)), _words(old, new)


def _plain(value: Any) -> Any:
    """Containers of values as dicts and lists, and paths as text: how it is held is no change."""
    if isinstance(value, argparse.Namespace):
        value = vars(value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {each.name: getattr(value, each.name) for each in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


class _NoLeaves:
    """A configuration holds plain values alone."""

    def encode(self, value: object, path: KeyPath) -> None:
        return None

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        raise unknown(kind, path)


def _decoded(tree: Json) -> Any:
    return decode(tree, _NoLeaves(), path=("config",))


def _differences(path: KeyPath, old: Any, new: Any) -> Iterator[tuple[KeyPath, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            yield from _differences((*path, key), old.get(key, _ABSENT), new.get(key, _ABSENT))
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences((*path, index), one, other)
    elif not _is_same(old, new):
        yield path, old, new


def _is_same(old: Any, new: Any) -> bool:
    if isinstance(old, bool) != isinstance(new, bool):
        return False
    return bool(old == new) or (old != old and new != new)


def _words(old: Any, new: Any) -> str:
    if old is _ABSENT:
        return f"is {_shown(new)} now, and was not in the checkpoint's"
    if new is _ABSENT:
        return f"is missing now, and was {_shown(old)} in the checkpoint's"
    return f"is {_shown(new)} now, and was {_shown(old)} in the checkpoint's"


def _shown(value: Any) -> str:
    return f"{value!r:.{_SHOWN}}"

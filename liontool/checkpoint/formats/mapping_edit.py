"""Edits of the entries of one mapping, for formats that are written from plain mappings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import Delete, Edit, Insert, Key, Rename, Replace, Value


def applied(old: Mapping[Any, Value], edits: Sequence[Edit]) -> dict[Any, Value]:
    """The mapping after `edits` of its entries; all Places are those before the first edit.

    Raises:
        ValueError: There is nothing at a Place, or two entries would have one key.
    """
    changes = {edit.place.path[-1]: edit for edit in edits if not isinstance(edit, Insert)}
    for key, edit in changes.items():
        if key not in old:
            raise ValueError(f"there is nothing at '{edit.place}'")
    left = [_entry_after(key, value, changes.get(key)) for key, value in old.items()]
    entries = [pair for pair in left if pair is not None]
    entries += [(e.place.path[-1], e.value) for e in edits if isinstance(e, Insert)]
    made = dict(entries)
    if len(made) != len(entries):
        raise ValueError("two entries would have one key")
    return made


def _entry_after(key: Key, value: Value, edit: Edit | None) -> tuple[Key, Value] | None:
    if isinstance(edit, Delete):
        return None
    if isinstance(edit, Rename):
        return edit.key, value
    return (key, edit.value) if isinstance(edit, Replace) else (key, value)

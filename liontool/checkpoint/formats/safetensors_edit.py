"""Edits of a safetensors file: of its tensors by name, and of the strings in its header.

Places: `(name,)` is a tensor, `("__metadata__", key)` a string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.copying import Piece
from liontool.checkpoint.document import (
    Delete,
    Edit,
    Insert,
    Key,
    Rename,
    Replace,
    Stored,
    TensorRef,
    Value,
)
from liontool.checkpoint.formats.safetensors_file import METADATA, entry, header_text, pieces
from liontool.errors import LayoutError

if TYPE_CHECKING:
    from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument

PROVENANCE = "liontool.provenance"
"""Key of the record that says where a file came from."""

_Contents = tuple[dict[str, TensorRef], dict[str, str]]


def rewritten(
    document: SafetensorsDocument,
    edits: Sequence[Edit],
    *,
    scan: frozenset[TensorRef],
    provenance: Mapping[str, Any] | None,
) -> list[Piece]:
    """The pieces of the same file with `edits` applied; bodies are copied as they are."""
    tensors, metadata = edited(document, edits, provenance)
    return pieces(tensors, metadata, scan=scan)


def keeps_tensors(document: SafetensorsDocument, edits: Sequence[Edit]) -> bool:
    """Whether the tensors stay as they are, though maybe under other names."""
    return set(edited(document, edits, None)[0].values()) == set(document.tree.values())


def header_in_place(
    document: SafetensorsDocument, edits: Sequence[Edit], provenance: Mapping[str, Any] | None
) -> bytes | None:
    """The header after `edits` that keep the tensors, as long as the old one; None if too long."""
    tensors, metadata = edited(document, edits, provenance)
    # In the order of the bytes, which is that of the tree.
    names = {tensor: name for name, tensor in tensors.items()}
    entries: dict[str, Any] = {METADATA: metadata} if metadata else {}
    for tensor in document.tree.values():
        begin = _offset(tensor) - document.overhead
        entries[names[tensor]] = entry(names[tensor], tensor, begin, begin + tensor.nbytes)
    text = header_text(entries)
    room = document.overhead - 8
    if len(text) > room:
        return None
    return room.to_bytes(8, "little") + text.ljust(room)


def edited(
    document: SafetensorsDocument, edits: Sequence[Edit], provenance: Mapping[str, Any] | None
) -> _Contents:
    """Tensors and metadata after `edits`.

    Raises:
        LayoutError: The document is the index of shards.
    """
    if document.shards():
        raise LayoutError(
            f"{document.path}: is the index of several files, which are not written as one; "
            "edit the folder that it lies in"
        )
    strings = [edit for edit in edits if edit.place.path[0] == METADATA]
    others = [edit for edit in edits if edit.place.path[0] != METADATA]
    metadata: dict[str, str] = _applied(document.facts, strings)
    if provenance is not None:
        metadata[PROVENANCE] = json.dumps(provenance)
    return _applied(document.tree, others), metadata


def _applied(old: Mapping[str, Value], edits: Sequence[Edit]) -> dict[str, Any]:
    """A mapping with edits of its entries; all Places are those before the first edit."""
    changes = {edit.place.path[-1]: edit for edit in edits if not isinstance(edit, Insert)}
    for key, edit in changes.items():
        if key not in old:
            raise ValueError(f"there is nothing at '{edit.place}'")
    left = [_entry_after(key, value, changes.get(key)) for key, value in old.items()]
    entries = [pair for pair in left if pair is not None]
    entries += [(e.place.path[-1], e.value) for e in edits if isinstance(e, Insert)]
    made = dict(entries)
    if len(made) != len(entries):
        raise ValueError("two entries would have one name")
    return made  # type: ignore[return-value]


def _entry_after(key: Key, value: Value, edit: Edit | None) -> tuple[Key, Value] | None:
    if isinstance(edit, Delete):
        return None
    if isinstance(edit, Rename):
        return edit.key, value
    return (key, edit.value) if isinstance(edit, Replace) else (key, value)


def _offset(tensor: TensorRef) -> int:
    assert isinstance(tensor.source, Stored)  # the reader makes no others
    return tensor.source.storage.span.offset

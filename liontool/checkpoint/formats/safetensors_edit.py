"""Edits of a safetensors file: of its tensors by name, and of the strings in its header.

Places: `(name,)` is a tensor, `("__metadata__", key)` a string.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.copying import Piece
from liontool.checkpoint.document import Edit, Stored, TensorRef
from liontool.checkpoint.formats.json_file import JsonDocument
from liontool.checkpoint.formats.mapping_edit import applied
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
    """The pieces of the same file with `edits` applied; bodies are copied as they are.

    Of the index of shards it is the JSON that is edited, at `("weight_map", name)` for instance.
    """
    if document.shards() and all(_is_in_index(edit) for edit in edits):
        index = JsonDocument(document.path, document.name)
        return index.rewritten(edits, scan=scan, provenance=provenance)
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
    metadata: dict[str, str] = applied(document.facts, strings)
    if provenance is not None:
        metadata[PROVENANCE] = json.dumps(provenance)
    return applied(document.tree, others), metadata


def _is_in_index(edit: Edit) -> bool:
    return len(edit.place.path) > 1 and edit.place.path[0] != METADATA


def _offset(tensor: TensorRef) -> int:
    assert isinstance(tensor.source, Stored)  # the reader makes no others
    return tensor.source.storage.span.offset

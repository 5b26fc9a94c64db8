"""Zip files as torch.save writes them: a rewritten one, or a new one, as pieces."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liontool.checkpoint.copying import Checksum, Literal, Piece, Raw
from liontool.checkpoint.document import Edit, TensorRef, Value
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_encode import encode
from liontool.checkpoint.formats.pickle_tree import collect_storages
from liontool.checkpoint.formats.torch_storages import NewStorages, body, by_storage, storage_key
from liontool.checkpoint.formats.torch_zip import PROVENANCE, TorchZipDocument, trusted_crc
from liontool.checkpoint.formats.zip_records import Record, record_text
from liontool.checkpoint.formats.zip_writer import ZipWriter

_ALIGNMENT = 64
_MAX_ALIGNMENT = 1 << 15  # the padding has to fit into an extra field


def rewritten(
    document: TorchZipDocument,
    edits: Sequence[Edit],
    *,
    scan: frozenset[TensorRef],
    provenance: Mapping[str, Any] | None,
) -> list[Piece]:
    """The pieces of the same file with `edits` applied; what no edit names is copied as it is."""
    added = NewStorages(document.storages)
    with document.edited(edits, added) as root:
        pickle = emit(root, document.protocol)
        keys = dict.fromkeys(map(storage_key, collect_storages(root)))
    used = [key for key in keys if key in document.storages or key in added.tensors]
    scanned = by_storage(scan)
    writer = ZipWriter(_alignment(document))
    for name in _names(document, used, added, gone=_made_anew(document, edits, provenance)):
        key = name.removeprefix(document.prefix + "data/")
        if name == document.prefix + "data.pkl":
            _add_bytes(writer, name, pickle)
        elif name not in document.records:
            _add_tensor(writer, name, added.tensors[key], scan, document.byteorder)
        else:
            views = scanned.get(document.storages[key], ()) if key in document.storages else ()
            _add_copy(writer, document.records[name], views)
    if provenance is not None:
        _add_bytes(writer, document.prefix + PROVENANCE, _json(provenance))
    return writer.finish()


def create(
    value: Value, *, scan: frozenset[TensorRef], provenance: Mapping[str, Any] | None
) -> list[Piece]:
    """The pieces of a new torch zip file that holds `value`."""
    added = NewStorages()
    root = encode(value, added)
    prefix = "archive/"
    writer = ZipWriter(_ALIGNMENT)
    _add_bytes(writer, prefix + "data.pkl", emit(root, 2))
    _add_bytes(writer, prefix + ".format_version", b"1")
    _add_bytes(writer, prefix + ".storage_alignment", str(_ALIGNMENT).encode())
    _add_bytes(writer, prefix + "byteorder", b"little")
    for key, tensor in added.tensors.items():
        _add_tensor(writer, f"{prefix}data/{key}", tensor, scan, "little")
    _add_bytes(writer, prefix + "version", b"3\n")
    if provenance is not None:
        _add_bytes(writer, prefix + PROVENANCE, _json(provenance))
    return writer.finish()


def _made_anew(
    document: TorchZipDocument, edits: Sequence[Edit], provenance: Mapping[str, Any] | None
) -> set[str]:
    """Records that would be wrong in the new file."""
    gone = set()
    if provenance is not None:
        gone.add(document.prefix + PROVENANCE)
    if edits:  # it is made from the contents
        gone.add(document.prefix + ".data/serialization_id")
    return gone


def _names(
    document: TorchZipDocument, used: Sequence[str], added: NewStorages, gone: set[str]
) -> Iterator[str]:
    """The records of the new file: the old order, new storages behind the old ones."""
    data = document.prefix + "data/"
    gone = gone | {data + key for key in document.storages} - {data + key for key in used}
    layout = [key for key in document.storages if data + key not in gone] + list(added.tensors)
    if layout != list(used) or layout[:1] not in ([], ["0"]):
        # It promises offsets that can be computed from keys used in order, from "0" on.
        gone.add(document.prefix + ".format_version")
    last = max(i for i, name in enumerate(document.records) if name.startswith(data[:-1]))
    for i, name in enumerate(document.records):
        if name not in gone:
            yield name
        if i == last:
            yield from (data + key for key in added.tensors)


def _alignment(document: TorchZipDocument) -> int:
    """What the file says of its alignment, if that can be kept."""
    word = record_text(document.records, document.prefix + ".storage_alignment") or ""
    number = int(word) if word.isascii() and word.isdigit() else 0
    return number if 0 < number <= _MAX_ALIGNMENT else _ALIGNMENT


def _add_bytes(writer: ZipWriter, name: str, data: bytes) -> None:
    writer.add(name, [Literal(data)], zlib.crc32(data))


def _add_tensor(
    writer: ZipWriter, name: str, tensor: TensorRef, scan: frozenset[TensorRef], byteorder: str
) -> None:
    checksum = Checksum()
    writer.add(name, [body(tensor, byteorder, scan=tensor in scan, crc=checksum)], checksum)


def _add_copy(writer: ZipWriter, record: Record, scanned: tuple[TensorRef, ...]) -> None:
    known = trusted_crc(record)
    if known is not None:
        writer.add(record.name, [Raw(record.span, scanned)], known)
        return
    checksum = Checksum()
    writer.add(record.name, [Raw(record.span, scanned, checksum)], checksum)


def _json(provenance: Mapping[str, Any]) -> bytes:
    return json.dumps(provenance, indent=1).encode() + b"\n"

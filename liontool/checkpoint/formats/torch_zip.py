"""The zip files of torch.save since 1.6: a pickle, and one record for each storage.

`<archive>/data.pkl` names storages by key, `<archive>/data/<key>` holds their bytes,
`<archive>/byteorder` says which way round. The layout is that of torch/serialization.py (PyTorch,
BSD licence).
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from liontool.checkpoint.copying import Checksum, Literal, Piece, Raw
from liontool.checkpoint.document import Edit, Storage, TensorRef, Value
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_file import read_pickle
from liontool.checkpoint.formats.pickle_parse import parse, protocol_of
from liontool.checkpoint.formats.pickle_tree import Tree, collect_storages, encode
from liontool.checkpoint.formats.torch_storages import (
    NewStorages,
    body,
    by_storage,
    check_count,
    storage_key,
)
from liontool.checkpoint.formats.zip_records import Record, read_records, record_text
from liontool.checkpoint.formats.zip_writer import ZipWriter
from liontool.errors import FormatError

PROVENANCE = "liontool.json"
"""Name of the record that says where a rewritten file came from."""

_ALIGNMENT = 64
_MAX_ALIGNMENT = 1 << 15  # the padding has to fit into an extra field
_MAX_PROVENANCE = 1 << 20


class TorchZipDocument:
    """A torch zip file as a Document."""

    container = "torch zip"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        self._records = read_records(path)
        self._prefix = _archive_prefix(self._records, path)
        self._byteorder = _byteorder(self._records, self._prefix, path)
        self._storages = _storages(self._records, self._prefix, self._byteorder)
        pickle = _checked_pickle(self._records[self._prefix + "data.pkl"])
        root, used = parse(pickle, where=f"{path}: data.pkl")
        if used != len(pickle):
            raise FormatError(f"{path}: {len(pickle) - used} bytes follow the pickle in data.pkl")
        self._protocol = protocol_of(pickle)
        self._tree = Tree(root, self._storage_of, str(path))
        self.overhead = path.stat().st_size - sum(s.span.length for s in self._storages.values())

    @property
    def tree(self) -> Value:
        """The pickle as plain values."""
        return self._tree.value

    @property
    def facts(self) -> Mapping[str, str]:
        """Byte order, versions, and where the file came from if liontool wrote it."""
        texts = {
            "byte order": self._byteorder,
            "pickle protocol": str(self._protocol),
            "archive version": record_text(self._records, self._prefix + "version"),
            "format version": record_text(self._records, self._prefix + ".format_version"),
            "provenance": record_text(self._records, self._prefix + PROVENANCE, _MAX_PROVENANCE),
        }
        return {key: text for key, text in texts.items() if text is not None}

    def rewritten(
        self,
        edits: Sequence[Edit],
        *,
        scan: frozenset[TensorRef],
        provenance: Mapping[str, Any] | None,
    ) -> list[Piece]:
        """The pieces of the same file with `edits` applied."""
        added = NewStorages(self._storages)
        with self._tree.edited(edits, added) as root:
            pickle = emit(root, self._protocol)
            keys = dict.fromkeys(map(storage_key, collect_storages(root)))
        used = [key for key in keys if key in self._storages or key in added.tensors]
        scanned = by_storage(scan)
        writer = ZipWriter(_alignment(self._records, self._prefix))
        for name in self._names(used, added, bool(edits), provenance is not None):
            key = name.removeprefix(self._prefix + "data/")
            if name == self._prefix + "data.pkl":
                _add_bytes(writer, name, pickle)
            elif name not in self._records:
                _add_tensor(writer, name, added.tensors[key], scan, self._byteorder)
            else:
                views = scanned.get(self._storages[key], ()) if key in self._storages else ()
                _add_copy(writer, self._records[name], views)
        if provenance is not None:
            _add_bytes(writer, self._prefix + PROVENANCE, _json(provenance))
        return writer.finish()

    def _names(
        self, used: Sequence[str], added: NewStorages, changed: bool, renew: bool
    ) -> Iterator[str]:
        """The records of the new file: the old order, new storages behind the old ones."""
        data = self._prefix + "data/"
        gone = {data + key for key in self._storages} - {data + key for key in used}
        if renew:
            gone.add(self._prefix + PROVENANCE)
        if changed:  # it is made from the contents
            gone.add(self._prefix + ".data/serialization_id")
        layout = [key for key in self._storages if data + key not in gone] + list(added.tensors)
        if layout != list(used) or layout[:1] not in ([], ["0"]):
            # It promises offsets that can be computed from keys used in order, from "0" on.
            gone.add(self._prefix + ".format_version")
        last = max(i for i, name in enumerate(self._records) if name.startswith(data[:-1]))
        for i, name in enumerate(self._records):
            if name not in gone:
                yield name
            if i == last:
                yield from (data + key for key in added.tensors)

    def _storage_of(self, pid: tuple[Value, ...]) -> Storage:
        if len(pid) != 5 or pid[0] != "storage":
            raise FormatError(f"{self.path}: the pickle refers to something that is no storage")
        storage = self._storages.get(pid[2])
        if storage is None:
            raise FormatError(f"{self.path}: needs storage {pid[2]!a}, which is not in the file")
        check_count(pid, storage)
        return storage


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


def _add_bytes(writer: ZipWriter, name: str, data: bytes) -> None:
    writer.add(name, [Literal(data)], zlib.crc32(data))


def _add_tensor(
    writer: ZipWriter, name: str, tensor: TensorRef, scan: frozenset[TensorRef], byteorder: str
) -> None:
    checksum = Checksum()
    writer.add(name, [body(tensor, byteorder, scan=tensor in scan, crc=checksum)], checksum)


def _add_copy(writer: ZipWriter, record: Record, scanned: tuple[TensorRef, ...]) -> None:
    known = _trusted_crc(record)
    if known is not None:
        writer.add(record.name, [Raw(record.span, scanned)], known)
        return
    checksum = Checksum()
    writer.add(record.name, [Raw(record.span, scanned, checksum)], checksum)


def _json(provenance: Mapping[str, Any]) -> bytes:
    return json.dumps(provenance, indent=1).encode() + b"\n"


def _archive_prefix(records: Mapping[str, Record], path: Path) -> str:
    """The folder that all records of a torch file lie in, with its slash."""
    first = next(iter(records), "")
    prefix = first.partition("/")[0] + "/"
    if prefix + "constants.pkl" in records or any(n.startswith(prefix + "code/") for n in records):
        raise FormatError(
            f"{path}: is a TorchScript archive (torch.jit.save), a program with its weights; "
            "give the checkpoint that the training wrote with torch.save"
        )
    if prefix + ".data/extern_modules" in records:
        raise FormatError(f"{path}: is a torch.package archive; give a checkpoint of torch.save")
    if prefix + "data.pkl" not in records:
        raise FormatError(
            f"{path}: is a zip file, but none of torch.save: it has no data.pkl; "
            "if the checkpoint was packed into it, unpack it first"
        )
    for name in records:
        if not name.startswith(prefix):
            raise FormatError(
                f"{path}: zip record {name!a} lies outside of its folder {prefix!a}; torch.load "
                "refuses such a file; take the record out of it: zip -d"
            )
    return prefix


def _byteorder(records: Mapping[str, Record], prefix: str, path: Path) -> str:
    """What the file says of its byte order; before torch 2.1 it says nothing, and is little."""
    if prefix + "byteorder" not in records:
        return "little"
    word = record_text(records, prefix + "byteorder")
    if word not in ("little", "big"):
        raise FormatError(f"{path}: its byte order is {word!a}; 'little' and 'big' are known")
    return word


def _alignment(records: Mapping[str, Record], prefix: str) -> int:
    """What the file says of its alignment, if that can be kept."""
    word = record_text(records, prefix + ".storage_alignment") or ""
    number = int(word) if word.isascii() and word.isdigit() else 0
    return number if 0 < number <= _MAX_ALIGNMENT else _ALIGNMENT


def _storages(records: Mapping[str, Record], prefix: str, byteorder: str) -> dict[str, Storage]:
    """Storages by key, in the order of the file."""
    prefix += "data/"
    return {
        name.removeprefix(prefix): Storage(
            record.span, byteorder, _trusted_crc(record), name.partition("/")[2]
        )
        for name, record in records.items()
        if name.startswith(prefix) and not name.endswith("/")
    }


def _trusted_crc(record: Record) -> int | None:
    """The CRC-32, unless torch was told to write none, which leaves a zero."""
    return record.crc if record.crc or not record.span.length else None


def _checked_pickle(record: Record) -> bytes:
    data = read_pickle(record.span)
    if record.crc and zlib.crc32(data) != record.crc:
        raise FormatError(f"{record.span.file}: data.pkl is damaged (its CRC-32 is wrong)")
    return data

"""The zip files of torch.save since 1.6: a pickle, and one record for each storage.

`<archive>/data.pkl` names storages by key, `<archive>/data/<key>` holds their bytes,
`<archive>/byteorder` says which way round. The layout is that of torch/serialization.py (PyTorch,
BSD licence).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.document import Edit, Storage, TensorRef, Value
from liontool.checkpoint.formats.pickle_file import read_pickle
from liontool.checkpoint.formats.pickle_nodes import Node
from liontool.checkpoint.formats.pickle_parse import parse, protocol_of
from liontool.checkpoint.formats.pickle_tensors import check_count
from liontool.checkpoint.formats.pickle_tree import Tree
from liontool.checkpoint.formats.zip_records import Record, read_records, record_text
from liontool.errors import FormatError

if TYPE_CHECKING:  # what only writing needs is not loaded for reading
    from liontool.checkpoint.copying import Piece
    from liontool.checkpoint.formats.pickle_encode import NewStorage

PROVENANCE = "liontool.json"
"""Name of the record that says where a rewritten file came from."""

_MAX_PROVENANCE = 1 << 20


class TorchZipDocument:
    """A torch zip file as a Document."""

    container = "torch zip"
    records: Mapping[str, Record]
    """The records of the zip, by name, in order."""
    prefix: str
    """The folder that all records lie in, with its slash."""
    storages: Mapping[str, Storage]
    """Storages by key, in order."""
    byteorder: str
    """Of all storages."""
    protocol: int
    """Of the pickle."""

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        self.records = read_records(path)
        self.prefix = _archive_prefix(self.records, path)
        self.byteorder = _byteorder(self.records, self.prefix, path)
        self.storages = _storages(self.records, self.prefix, self.byteorder)
        pickle = _checked_pickle(self.records[self.prefix + "data.pkl"])
        root, used = parse(pickle, where=f"{path}: data.pkl")
        if used != len(pickle):
            raise FormatError(f"{path}: {len(pickle) - used} bytes follow the pickle in data.pkl")
        self.protocol = protocol_of(pickle)
        self._tree = Tree(root, self._storage_of, str(path))
        self.overhead = path.stat().st_size - sum(s.span.length for s in self.storages.values())

    def edited(
        self, edits: Sequence[Edit], new_storage: NewStorage
    ) -> AbstractContextManager[Node]:
        """The root of the pickle with `edits` applied, for as long as the context lasts."""
        return self._tree.edited(edits, new_storage)

    @property
    def tree(self) -> Value:
        """The pickle as plain values."""
        return self._tree.value

    @property
    def facts(self) -> Mapping[str, str]:
        """Byte order, versions, and where the file came from if liontool wrote it."""
        texts = {
            "byte order": self.byteorder,
            "pickle protocol": str(self.protocol),
            "archive version": record_text(self.records, self.prefix + "version"),
            "format version": record_text(self.records, self.prefix + ".format_version"),
            "provenance": record_text(self.records, self.prefix + PROVENANCE, _MAX_PROVENANCE),
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
        from liontool.checkpoint.formats.torch_zip_writing import rewritten

        return rewritten(self, edits, scan=scan, provenance=provenance)

    def _storage_of(self, pid: tuple[Value, ...]) -> Storage:
        if len(pid) != 5 or pid[0] != "storage":
            raise FormatError(f"{self.path}: the pickle refers to something that is no storage")
        storage = self.storages.get(pid[2])
        if storage is None:
            raise FormatError(f"{self.path}: needs storage {pid[2]!a}, which is not in the file")
        check_count(pid, storage)
        return storage


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
    if "model.weights.h5" in records:
        raise FormatError(f"{path}: is a Keras file, which this version does not read")
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


def _storages(records: Mapping[str, Record], prefix: str, byteorder: str) -> dict[str, Storage]:
    """Storages by key, in the order of the file."""
    prefix += "data/"
    return {
        name.removeprefix(prefix): Storage(
            record.span, byteorder, trusted_crc(record), name.partition("/")[2]
        )
        for name, record in records.items()
        if name.startswith(prefix) and not name.endswith("/")
    }


def trusted_crc(record: Record) -> int | None:
    """The CRC-32, unless torch was told to write none, which leaves a zero."""
    return record.crc if record.crc or not record.span.length else None


def _checked_pickle(record: Record) -> bytes:
    data = read_pickle(record.span)
    if record.crc and zlib.crc32(data) != record.crc:
        raise FormatError(f"{record.span.file}: data.pkl is damaged (its CRC-32 is wrong)")
    return data

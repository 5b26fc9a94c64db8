"""Bytes to Documents and back. A format is told by what the file holds, never by its name.

Each format is imported when the first file of its kind turns up: `inspect` starts faster for it.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.copying import Piece
from liontool.checkpoint.document import Document, Edit, TensorRef, Value
from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.run_folder import layout as run_folder
from liontool.errors import FormatError, LayoutError, ReadError

__all__ = [
    "create_torch",
    "index_of",
    "notices",
    "open_document",
    "parts",
    "rewrite",
    "rewrite_files",
    "shards",
]

_HEAD = 512


@runtime_checkable
class Rewritable(Protocol):
    """A Document that can be written again."""

    def rewritten(
        self,
        edits: Sequence[Edit],
        *,
        scan: frozenset[TensorRef],
        provenance: Mapping[str, Any] | None,
    ) -> list[Piece]:
        """The pieces of the same file with `edits` applied."""


@runtime_checkable
class Sharded(Protocol):
    """A Document whose tensors may lie in other files than its own."""

    def shards(self) -> Collection[Path]:
        """Those files."""


@runtime_checkable
class Joined(Protocol):
    """A Document of several files of a folder, which are read as one tree and written together."""

    def parts(self) -> Collection[str]:
        """The other files by their names below the source."""

    def rewritten_files(
        self, edits: Sequence[Edit], *, scan: frozenset[TensorRef]
    ) -> dict[str, list[Piece]]:
        """The pieces of all files, by name, with `edits` applied."""


@runtime_checkable
class Noted(Protocol):
    """A Document whose reader should be told something."""

    notices: tuple[str, ...]


# Offset, the bytes there, and what to tell whoever has such a file.
_STRANGERS: tuple[tuple[int, bytes, str], ...] = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file itself; run: git lfs pull"),
    (0, b"\x1f\x8b", "is compressed with gzip; unpack it first: gunzip"),
    (0, b"BZh", "is compressed with bzip2; unpack it first: bunzip2"),
    (0, b"\xfd7zXZ\0", "is compressed with xz; unpack it first: unxz"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed with zstd; unpack it first: unzstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "is a 7z archive; unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "is an HDF5 file; only torch files and safetensors are read"),
    (0, b"\x93NUMPY", "is a NumPy array; only torch files and safetensors are read"),
    (0, b"GGUF", "is a GGUF file, which holds no optimizer state; give the training checkpoint"),
    (
        257,
        b"ustar",
        "is a tar file; torch before 0.1.10 saved so: load it with torch.load(weights_only=False) "
        "and torch.save it again; any other tar file must be unpacked first",
    ),
)


@paused_collector()
def open_document(path: Path, name: str = "") -> Document:
    """Read one file: its tree of values, no tensor data.

    Args:
        path: The file.
        name: What to call it, its path below the source; "" where it is the source.

    Raises:
        ReadError: It cannot be read, is damaged, or is of no kind that liontool knows.
    """
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
            size = file.seek(0, 2)
        return _opened(path, name, head, size)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error


def _opened(path: Path, name: str, head: bytes, size: int) -> Document:
    if not size:
        raise FormatError(f"{path}: is empty (0 bytes); was the run stopped while it was saving?")
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size:
        return _opened_safetensors(path, name)
    for offset, mark, advice in _STRANGERS:
        if head.startswith(mark, offset):
            raise FormatError(f"{path}: {advice}")
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        from liontool.checkpoint.formats.torch_zip import TorchZipDocument

        return TorchZipDocument(path, name)
    if head[:1] == b"\x80" or head[:1] == b"L":
        return _opened_pickle(path, name, head)
    start = head.lstrip()
    if start[:1] in (b"{", b"["):
        return _opened_json(path, name, head)
    raise FormatError(f"{path}: {_complaint(start, head)}")


def _opened_pickle(path: Path, name: str, head: bytes) -> Document:
    """A legacy torch file, which begins with the pickle of a magic number, or a bare pickle."""
    from liontool.checkpoint.formats import pickle_file, torch_legacy

    if torch_legacy.is_legacy(head):
        return torch_legacy.TorchLegacyDocument(path, name)
    return pickle_file.PickleDocument(path, name)


def _opened_safetensors(path: Path, name: str) -> Document:
    from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument

    return SafetensorsDocument(path, name)


def _opened_json(path: Path, name: str, head: bytes) -> Document:
    """A JSON file, the state of a run, or the shards of safetensors that it is the index of."""
    if f'"{run_folder.STATE}"'.encode() in head:
        return _opened_run_state(path, name)
    from liontool.checkpoint.formats.json_file import JsonDocument

    bounded_json.check_file(path)
    document = JsonDocument(path, name)
    tree = document.tree
    shards = tree.get("weight_map") if isinstance(tree, dict) else None
    if isinstance(shards, dict) and str(next(iter(shards.values()), "")).endswith(".safetensors"):
        return _opened_safetensors(path, name)
    return document


def _opened_run_state(path: Path, name: str) -> Document:
    """The tree of a run's state, with its tensors from the file beside."""
    from liontool.checkpoint.formats.run_state import RunStateDocument

    if not name:
        raise LayoutError(
            f"{path}: is a part of a checkpoint of a run; give the whole: "
            f"{shlex.quote(str(path.parent))}"
        )
    return RunStateDocument(path, name)


def _complaint(start: bytes, head: bytes) -> str:
    if start[:9].lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "is a web page, an error or a login page that was saved in place of the checkpoint"
    if not head.strip(b"\0"):
        return "begins with zeros; the file was reserved on the disk, but never written"
    return "is no torch file, safetensors file, pickle or JSON; what wrote it?"


def index_of(name: str) -> str:
    """The file that another one would be a part of, by its name; "" for most names."""
    folder, slash, last = name.rpartition("/")
    index = run_folder.tree_of(last)
    return f"{folder}{slash}{index}" if index else ""


def parts(document: Document) -> Collection[str]:
    """The files of a folder that a document holds besides its own."""
    return document.parts() if isinstance(document, Joined) else ()


def shards(document: Document) -> Collection[Path]:
    """The files that a document is read from besides its own."""
    return document.shards() if isinstance(document, Sharded) else ()


def notices(document: Document) -> tuple[str, ...]:
    """What whoever reads a document should be told, a sentence each."""
    return document.notices if isinstance(document, Noted) else ()


def rewrite(
    document: Document,
    edits: Sequence[Edit],
    *,
    scan: Collection[TensorRef],
    provenance: Mapping[str, Any] | None,
) -> list[Piece]:
    """The same file with `edits` applied; what no edit names is copied as it is.

    Args:
        document: The file, from `open_document`.
        edits: Changes at Places of this document.
        scan: Tensors in which NaN or infinity stops the writing.
        provenance: A record about this rewriting, for formats with room for one. None for none.

    Raises:
        LayoutError: Files of this kind are not written.
    """
    if isinstance(document, Rewritable):
        return document.rewritten(edits, scan=frozenset(scan), provenance=provenance)
    raise LayoutError(f"{document.path}: files of kind '{document.container}' are only read")


def rewrite_files(
    document: Document, edits: Sequence[Edit], *, scan: Collection[TensorRef]
) -> dict[str, list[Piece]]:
    """All files of a document in a folder, by name; see `rewrite`."""
    if isinstance(document, Joined):
        return document.rewritten_files(edits, scan=frozenset(scan))
    return {document.name: rewrite(document, edits, scan=scan, provenance=None)}


def create_torch(
    value: Value, *, scan: Collection[TensorRef], provenance: Mapping[str, Any] | None
) -> list[Piece]:
    """A new file as `torch.save(value)` would write it.

    Args:
        value: Plain values and TensorRefs, nested.
        scan: Tensors in which NaN or infinity stops the writing.
        provenance: A record about how it was made. None for none.
    """
    from liontool.checkpoint.formats import torch_zip_writing

    return torch_zip_writing.create(value, scan=frozenset(scan), provenance=provenance)

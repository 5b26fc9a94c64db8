"""The identity of a checkpoint without reading its tensors: a hash of everything else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from hashlib import sha256
from typing import TYPE_CHECKING

from liontool.checkpoint.document import Document, Span, Stored, tensors
from liontool.checkpoint.model import Checkpoint
from liontool.checkpoint.source import Source
from liontool.errors import ReadError

if TYPE_CHECKING:
    from hashlib import _Hash

_BLOCK = 1 << 20


def checkpoint_sha256(source: Source, checkpoint: Checkpoint) -> str:
    """The same for a checkpoint: in a folder, of the files with its groups and schedulers.

    Raises:
        ReadError: A file cannot be read any more.
    """
    names = sorted(set(_document_names(checkpoint))) if source.is_folder else [""]
    return header_sha256(source.document(name) for name in names)


def _document_names(checkpoint: Checkpoint) -> Iterator[str]:
    """The files that groups and schedulers live in."""
    for optimizer in checkpoint.optimizers:
        fields = [group.fields for group in optimizer.groups]
        fields += [scheduler.fields for scheduler in optimizer.schedulers]
        yield from (item.place.document for item in fields if item.place is not None)


def header_sha256(documents: Iterable[Document]) -> str:
    """SHA-256, in hexadecimal, of the bytes of `documents` that belong to no tensor.

    Raises:
        ReadError: A file cannot be read any more.
    """
    digest = sha256()
    for document in documents:
        try:
            _add(digest, document)
        except OSError as error:
            raise ReadError(f"{document.path}: cannot be read: {error.strerror}") from error
    return digest.hexdigest()


def _add(digest: _Hash, document: Document) -> None:
    end = document.path.stat().st_size
    with document.path.open("rb") as file:
        position = 0
        for span in [*_spans(document), Span(document.path, end, 0)]:
            file.seek(position)
            _add_bytes(digest, file.read, span.offset - position)
            position = max(position, span.offset + span.length)


def _spans(document: Document) -> list[Span]:
    """Where the tensors of the file itself lie, in order; shards of an index are other files."""
    storages = {
        tensor.source.storage
        for _, tensor in tensors(document.tree)
        if isinstance(tensor.source, Stored)
    }
    spans = (storage.span for storage in storages)
    return sorted((s for s in spans if s.file == document.path), key=lambda span: span.offset)


def _add_bytes(digest: _Hash, read: Callable[[int], bytes], count: int) -> None:
    while count > 0:
        block = read(min(count, _BLOCK))
        if not block:
            return
        digest.update(block)
        count -= len(block)

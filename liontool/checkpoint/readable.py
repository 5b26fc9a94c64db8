"""The files of a source as far as they can be read, each to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from liontool.checkpoint.document import Document, tensors
from liontool.checkpoint.source import Source
from liontool.errors import ReadError


def readable(source: Source, suffixes: tuple[str, ...]) -> Iterator[Document]:
    """The one file of a source; of a folder all that end so, but for those that cannot be read.

    Raises:
        ReadError: The source is one file, and it cannot be read.
    """
    if not source.is_folder:
        yield source.document()
        return
    for name in source.names():
        if name.endswith(suffixes):
            try:
                document = whole(source, name)
            except ReadError:
                continue
            yield document


def whole(source: Source, name: str) -> Document:
    """A file of which every part was looked at: trees are read as one walks through them.

    Raises:
        ReadError: A part of it cannot be read.
    """
    document = source.document(name)
    deque(tensors(document.tree), maxlen=0)
    return document

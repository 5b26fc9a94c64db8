"""The files of a source as far as they can be read, each to its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from liontool.checkpoint.document import Document, tensors
from liontool.checkpoint.source import Source
from liontool.errors import ReadError


def readable(
    source: Source, suffixes: tuple[str, ...], unread: list[str] | None = None
) -> Iterator[Document]:
    """The one file of a source; of a folder all that end so, but for those that cannot be read.

    Args:
        source: A file or a folder.
        suffixes: How the files of a folder end that are wanted.
        unread: Gets a sentence for each that is left out.

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
            except ReadError as error:
                if unread is not None:
                    unread.append(str(error))
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

"""Bare pickle files, such as the `.metadata` of a sharded checkpoint: no storages, only read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from liontool.checkpoint.document import Span, Storage, Value
from liontool.checkpoint.formats.pickle_parse import PickleLimits, parse, protocol_of
from liontool.checkpoint.formats.pickle_tree import Tree
from liontool.checkpoint.formats.zip_records import read_span
from liontool.errors import FormatError, LimitError


def read_pickle(span: Span) -> bytes:
    """The bytes of a pickle, unless there are more than any honest one has."""
    if span.length > PickleLimits.BYTES:
        raise LimitError(
            f"{span.file}: pickle of {span.length} bytes; at most {PickleLimits.BYTES} are read"
        )
    return read_span(span)


class PickleDocument:
    """A bare pickle as a Document."""

    container = "pickle"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        self.overhead = path.stat().st_size
        data = read_pickle(Span(path, 0, self.overhead))
        root, used = parse(data, where=str(path))
        if used != len(data):
            raise FormatError(
                f"{path}: {len(data) - used} bytes follow the pickle; "
                "only files with one object in them are read"
            )
        self._tree = Tree(root, self._storage_of, str(path))
        self.facts: Mapping[str, str] = {"pickle protocol": str(protocol_of(data))}

    @property
    def tree(self) -> Value:
        """The pickle as plain values."""
        return self._tree.value

    def _storage_of(self, pid: tuple[Value, ...]) -> Storage:
        raise FormatError(
            f"{self.path}: the pickle refers to tensors outside of it; "
            "if it is the data.pkl of an unpacked torch file, give the packed file"
        )

"""`PATH.undo`: what a file begins with before and after an edit of its header in place.

It is on the disk before the first byte of the file changes. Whoever finds a header that is neither
the old one nor the new one reads the old one from here. After the edit it is the way back. Records
of earlier edits follow the newest, so that edits are taken back one after another.

A record: a line of magic, a line of JSON, the old header, the new header, and the SHA-256 of all of
it. The file is known by its size and by samples of its tensors, so that a copy is known too.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from liontool.checkpoint.document import Span
from liontool.checkpoint.reading import opened, read_into
from liontool.errors import ReadError

if TYPE_CHECKING:
    from hashlib import _Hash

SUFFIX = ".undo"
MOST_RECORDS = 16
"""Edits that can be taken back one after another."""

_MAGIC = b"liontool undo 1\n"
_FACTS = ("header_bytes", "file_bytes", "sample_sha256")
_MOST_BYTES = 1 << 27
_MOST_FACTS = 1 << 12
_SAMPLE = 1 << 16
_DIGEST = 32  # bytes of a SHA-256


@dataclass(frozen=True)
class Record:
    """One edit of a header.

    Attributes:
        old: The first bytes of the file before it.
        new: The same after it, as many.
        file_bytes: Size of the file.
        sample: SHA-256 of samples of what follows the header.
    """

    old: bytes
    new: bytes
    file_bytes: int
    sample: str

    def encoded(self) -> bytes:
        """As it stands in the file."""
        facts = dict(zip(_FACTS, (len(self.old), self.file_bytes, self.sample), strict=True))
        data = _MAGIC + json.dumps(facts).encode() + b"\n" + self.old + self.new
        return data + _sha256(data).digest()

    def is_of(self, fd: int, path: Path) -> bool:
        """Whether the open file is the one that the record was made for, whatever its header."""
        size = os.fstat(fd).st_size
        return size == self.file_bytes and sample(fd, path, len(self.old)) == self.sample

    def is_torn(self, header: bytes) -> bool:
        """Whether `header` is neither the old nor the new one, but parts of both, or no header."""
        if header in (self.old, self.new):
            return False
        parts = zip(header, self.old, self.new, strict=True)
        return all(now in (old, new) for now, old, new in parts) or not _is_sound(header)


def place(path: Path) -> Path:
    """Where the record of a file is: beside the file itself, where `path` is a link."""
    return Path(os.path.realpath(path) + SUFFIX)


def sample(fd: int, path: Path, start: int) -> str:
    """SHA-256 of the first, the middle and the last bytes behind `start`."""
    length = max(os.fstat(fd).st_size - start, 0)
    count = min(_SAMPLE, length)
    digest = _sha256()
    for offset in (0, (length - count) // 2, length - count):
        digest.update(read(fd, Span(path, start + offset, count)))
    return digest.hexdigest()


def read(fd: int, span: Span) -> bytes:
    """Some bytes of an open file."""
    data = bytearray(span.length)
    read_into(fd, span, memoryview(data))
    return bytes(data)


def is_there(path: Path) -> bool:
    """Whether the file has anything under the name of its record."""
    return os.path.lexists(place(path))


def records(path: Path) -> tuple[Record, ...] | None:
    """The records of a file, newest first; () without any, None if its place holds something else.

    Damaged ones, and all that follow them, are left out.
    """
    if not is_there(path):
        return ()
    try:
        with opened(place(path)) as fd:
            is_ours = _bytes(fd, 0, len(_MAGIC)) == _MAGIC
            return tuple(islice(_records(fd), MOST_RECORDS)) if is_ours else None
    except ReadError:
        return None


def newest(path: Path) -> Record | None:
    """The record of the last edit of a file."""
    if not is_there(path):
        return None
    try:
        with opened(place(path)) as fd:
            return next(_records(fd), None)
    except ReadError:
        return None


def _records(fd: int) -> Iterator[Record]:
    start = 0
    while (record := _record(fd, start)) is not None:
        yield record
        start += len(record.encoded())


def _record(fd: int, start: int) -> Record | None:
    """The record at `start`; None if there is none, or its bytes are not what was written."""
    head = _bytes(fd, start, _MOST_FACTS)
    if not head.startswith(_MAGIC):
        return None
    body = head.find(b"\n", len(_MAGIC)) + 1
    try:
        facts = json.loads(head[len(_MAGIC) : body])
        length, size, digest = (facts[name] for name in _FACTS)
    except (ValueError, KeyError, TypeError):
        return None
    if type(length) is not int or type(size) is not int or not 0 < length <= _MOST_BYTES:
        return None
    end = body + 2 * length
    data = _bytes(fd, start, end + _DIGEST)
    if data[end:] != _sha256(data[:end]).digest():
        return None
    return Record(data[body : body + length], data[body + length : end], size, str(digest))


def _bytes(fd: int, start: int, count: int) -> bytes:
    """Bytes of the record's file, fewer where it ends."""
    count = max(0, min(count, os.fstat(fd).st_size - start))
    return read(fd, Span(Path(), start, count))


def torn(fd: int, path: Path) -> Record | None:
    """The record of an edit that broke off in the middle of the header, if one did."""
    record = newest(path)
    if record is None or not record.is_of(fd, path):
        return None
    return record if record.is_torn(read(fd, Span(path, 0, len(record.old)))) else None


def _is_sound(header: bytes) -> bool:
    if int.from_bytes(header[:8], "little") != len(header) - 8:
        return False
    try:
        return isinstance(json.loads(header[8:]), dict)
    except (ValueError, RecursionError):
        return False


def _sha256(data: bytes = b"") -> _Hash:
    """Hashes are imported when one is made: every reader comes by here, and few have to hash."""
    from hashlib import sha256

    return sha256(data)

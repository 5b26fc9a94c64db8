"""Zip files laid out as torch lays them out, as pieces.

The layout follows PyTorch's writer (caffe2/serialize/inline_container.cc, BSD licence): data
aligned through an extra field `FB`, sizes and CRC-32 in a descriptor behind the data. torch
computes offsets of storages from that layout, so it is kept to the byte.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from liontool.checkpoint.copying import Checksum, Late, Literal, Piece, total
from liontool.checkpoint.formats.zip_records import (
    CENTRAL,
    DESCRIPTOR,
    END,
    END64,
    LOCAL,
    LOCATOR64,
    MARK16,
    MARK32,
    UTF8,
)

ZIP32_MAX = 0xFFFFFFFF
"""From here on, sizes and offsets need the fields of zip64."""


class ZipWriter:
    """Lays out records one after another; `finish` adds the directory and returns all pieces.

    Args:
        alignment: Offsets of the data are multiples of it.
    """

    def __init__(self, alignment: int = 64) -> None:
        self._alignment = alignment
        self._offset = 0
        self._pieces: list[Piece] = []
        self._lines: list[_Line] = []

    def add(self, name: str, body: Sequence[Piece], crc: int | Checksum) -> None:
        """Add a record.

        Args:
            name: Its full name.
            body: Its bytes.
            crc: Their CRC-32; a Checksum is asked for its value once the body has been written.
        """
        line = _Line(name.encode(), total(body), crc, self._offset)
        header = _local_header(line, self._alignment)
        self._append(Literal(header), *body)
        if line.size and isinstance(crc, Checksum):
            self._append(Late(24 if line.wide else 16, line.descriptor))
        elif line.size:
            self._append(Literal(line.descriptor()))
        self._lines.append(line)

    def finish(self) -> list[Piece]:
        """The pieces of the whole file."""
        lines, offset = self._lines, self._offset
        size = sum(len(line.directory_line()) for line in lines)
        end = _directory_end(len(lines), size, offset)
        self._append(Late(size, lambda: b"".join(line.directory_line() for line in lines)))
        self._append(Literal(end))
        return self._pieces

    def _append(self, *pieces: Piece) -> None:
        self._offset += total(pieces)
        for piece in pieces:
            last = self._pieces[-1] if self._pieces else None
            if isinstance(piece, Literal) and isinstance(last, Literal) and last.length < _JOINED:
                self._pieces[-1] = Literal(last.data + piece.data)
            else:
                self._pieces.append(piece)


@dataclass(frozen=True, slots=True)
class _Line:
    """What the directory says of one record."""

    name: bytes
    size: int
    known_crc: int | Checksum
    header: int

    @property
    def crc(self) -> int:
        return self.known_crc.value if isinstance(self.known_crc, Checksum) else self.known_crc

    @property
    def flags(self) -> int:
        return UTF8 | (DESCRIPTOR if self.size else 0)

    @property
    def wide(self) -> bytes:
        """The zip64 extra field, empty where 32 bits are enough."""
        numbers = [self.size, self.size] if self.size >= ZIP32_MAX else []
        numbers += [self.header] if self.header >= ZIP32_MAX else []
        if not numbers:
            return b""
        return struct.pack(f"<HH{len(numbers)}Q", 0x0001, 8 * len(numbers), *numbers)

    def descriptor(self) -> bytes:
        return struct.pack(
            "<4sIQQ" if self.wide else "<4sIII", b"PK\x07\x08", self.crc, self.size, self.size
        )

    def directory_line(self) -> bytes:
        size = MARK32 if self.size >= ZIP32_MAX else self.size
        header = MARK32 if self.header >= ZIP32_MAX else self.header
        version = 45 if self.wide else 20
        fixed = CENTRAL.pack(
            b"PK\x01\x02", version, version, self.flags, 0, 0, _DATE, self.crc, size, size,
            len(self.name), len(self.wide), 0, 0, 0, 0, header,
        )  # fmt: skip
        return fixed + self.name + self.wide


_JOINED = 4096
"""Shorter literals take up the one that follows: half as many objects, and half as many writes."""

_DATE = 0x21
"""1 January 1980, the first day that a zip file knows."""


def _local_header(line: _Line, alignment: int) -> bytes:
    """A local header, padded so that the data behind it is aligned; a descriptor has the sizes."""
    start = line.header + LOCAL.size + len(line.name) + len(line.wide) + 4
    padding = -start % alignment
    extra = line.wide + struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    version = 45 if line.wide else 20
    fixed = LOCAL.pack(
        b"PK\x03\x04", version, line.flags, 0, 0, _DATE, 0, 0, 0, len(line.name), len(extra)
    )
    return fixed + line.name + extra


def _directory_end(count: int, size: int, offset: int) -> bytes:
    """The records at the end of the file, those of zip64 first where they are needed."""
    wide = b""
    if count >= MARK16 or size >= ZIP32_MAX or offset >= ZIP32_MAX:
        wide = END64.pack(b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
        wide += LOCATOR64.pack(b"PK\x06\x07", 0, offset + size, 1)
        count, size, offset = min(count, MARK16), MARK32, MARK32
    return wide + END.pack(b"PK\x05\x06", 0, 0, count, count, size, offset, 0)

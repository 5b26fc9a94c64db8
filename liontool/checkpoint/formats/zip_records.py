"""Records of zip files as torch writes them: uncompressed, found by offset, read with suspicion.

Whatever is said twice, in the directory and in front of the data, must agree; no record may overlap
another one, or have a name that leads out of the archive.
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.document import Span
from liontool.errors import FormatError, LimitError, UnsafePathError

MAX_ENTRIES = 2_000_000
"""Records in one file; the largest checkpoints known have a few hundred thousand storages."""
MAX_DIRECTORY = 512 << 20
"""Bytes of the central directory."""
MAX_NAME = 4096
"""Bytes of a record's name."""

LOCAL = struct.Struct("<4sHHHHHIIIHH")
CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
END = struct.Struct("<4sHHHHIIH")
LOCATOR64 = struct.Struct("<4sIQI")
END64 = struct.Struct("<4sQHHIIQQQQ")
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
DESCRIPTOR = 0x0008
UTF8 = 0x0800
_FOLDER = 0x10
MARK16, MARK32 = 0xFFFF, 0xFFFFFFFF
_MAX_COMMENT = 0xFFFF


@dataclass(frozen=True, slots=True)
class Record:
    """One uncompressed record of a zip file.

    Attributes:
        name: Its full name, "archive/data/17".
        span: Its bytes in the file.
        crc: The CRC-32 that the directory claims; 0 where torch was told to leave it out.
    """

    name: str
    span: Span
    crc: int


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of the central directory."""

    name: bytes
    flags: int
    crc: int
    size: int
    header: int


@dataclass(frozen=True)
class _Directory:
    offset: int
    size: int
    count: int


def read_records(path: Path) -> dict[str, Record]:
    """All records of a zip file by name, in the order of its directory.

    Raises:
        FormatError: Truncated, contradictory, compressed, encrypted or overlapping records.
        LimitError: More records than any checkpoint has.
        UnsafePathError: A name that leads out of the archive.
    """
    with path.open("rb") as file:
        fd = file.fileno()
        directory = _find_directory(fd, os.fstat(fd).st_size, path)
        entries = list(_entries(fd, directory, path))
        starts = sorted(entry.header for entry in entries)
        records: dict[str, Record] = {}
        for entry in entries:
            name = _safe_name(entry, path)
            if name in records:
                raise FormatError(f"{path}: two zip records are named '{name}'")
            following = bisect_right(starts, entry.header)
            end = starts[following] if following < len(starts) else directory.offset
            records[name] = Record(name, _data_span(fd, entry, end, path), entry.crc)
        if len(set(starts)) != len(starts):
            raise FormatError(f"{path}: two zip records lie at the same offset")
        return records


def _find_directory(fd: int, size: int, path: Path) -> _Directory:
    """Where the central directory lies, by the records at the end of the file."""
    tail_offset = max(0, size - END.size - _MAX_COMMENT)
    tail = os.pread(fd, size - tail_offset, tail_offset)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + END.size > len(tail):
        raise FormatError(
            f"{path}: the zip directory at the end of the file is missing; the file is cut short "
            "(disk full, or still being written or downloaded)"
        )
    _, disk, first_disk, here, count, length, offset, comment = END.unpack_from(tail, at)
    if at + END.size + comment != len(tail):
        raise FormatError(f"{path}: other bytes follow the end of the zip file")
    if disk not in (0, MARK16) or first_disk not in (0, MARK16) or here != count:
        raise FormatError(
            f"{path}: a zip file in several parts cannot be read; join the parts first"
        )
    end = tail_offset + at
    found = _Directory(offset, length, count)
    locator = end - LOCATOR64.size
    if locator >= 0 and os.pread(fd, 4, locator) == b"PK\x06\x07":
        found, end = _find_directory64(fd, locator, found, path)
    if found.offset + found.size != end:
        raise FormatError(
            f"{path}: the zip directory is not where the end of the file says; "
            "the file was cut, joined with another one or damaged"
        )
    if found.count > MAX_ENTRIES or found.size > MAX_DIRECTORY:
        raise LimitError(
            f"{path}: the zip directory claims {found.count} records in {found.size} bytes; "
            f"at most {MAX_ENTRIES} records in {MAX_DIRECTORY} bytes are read"
        )
    if found.count * CENTRAL.size > found.size:
        raise FormatError(f"{path}: the zip directory is too small for its {found.count} records")
    return found


def _find_directory64(
    fd: int, locator: int, short: _Directory, path: Path
) -> tuple[_Directory, int]:
    """The same from the end records of zip64, and the offset where those begin."""
    _, _, offset, _ = LOCATOR64.unpack(os.pread(fd, LOCATOR64.size, locator))
    raw = os.pread(fd, END64.size, offset) if offset < locator else b""
    if len(raw) != END64.size or raw[:4] != b"PK\x06\x06":
        raise FormatError(f"{path}: the zip64 directory end is not where its locator says")
    _, length, _, _, disk, first_disk, here, count, size, start = END64.unpack(raw)
    if offset + 12 + length != locator or disk or first_disk or here != count:
        raise FormatError(f"{path}: the zip64 directory end contradicts itself")
    for old, new, mark in (
        (short.offset, start, MARK32),
        (short.size, size, MARK32),
        (short.count, count, MARK16),
    ):
        if old not in (new, mark):
            raise FormatError(
                f"{path}: the two directory ends of the zip file contradict each other"
            )
    return _Directory(start, size, count), offset


def _entries(fd: int, directory: _Directory, path: Path) -> Iterator[_Entry]:
    """The lines of the central directory."""
    raw = os.pread(fd, directory.size, directory.offset)
    at = 0
    for number in range(directory.count):
        if at + CENTRAL.size > len(raw) or raw[at : at + 4] != b"PK\x01\x02":
            raise FormatError(f"{path}: line {number} of the zip directory is damaged")
        line = CENTRAL.unpack_from(raw, at)
        flags, method, crc = line[3], line[4], line[7]
        name_length, extra_length, comment_length, disk = line[10:14]
        name_at = at + CENTRAL.size
        extra_at = name_at + name_length
        at = extra_at + extra_length + comment_length
        if at > len(raw):
            raise FormatError(f"{path}: line {number} of the zip directory is cut short")
        name = raw[name_at:extra_at]
        extra = raw[extra_at : extra_at + extra_length]
        stored, size, header, disk = _wide(line[8], line[9], line[16], disk, extra, name, path)
        _check_plain(name, flags, method, stored == size, path)
        if line[15] & _FOLDER and size:
            raise FormatError(f"{path}: zip record {_show(name)} is a folder with data of its own")
        if disk:
            raise FormatError(f"{path}: zip record {_show(name)} lies in another part")
        yield _Entry(name, flags, crc, size, header)
    if at != len(raw):
        raise FormatError(
            f"{path}: the zip directory has more in it than its {directory.count} lines"
        )


def _wide(
    stored: int, size: int, header: int, disk: int, extra: bytes, name: bytes, path: Path
) -> tuple[int, int, int, int]:
    """The fields of a directory line, with the zip64 extra field in place of those that say so."""
    if MARK32 not in (stored, size, header):
        return stored, size, header, disk
    wide = extra_field(extra, 0x0001)
    needed = 8 * (stored == MARK32) + 8 * (size == MARK32) + 8 * (header == MARK32)
    if wide is None or len(wide) < needed:
        raise FormatError(f"{path}: zip record {_show(name)} lacks its zip64 sizes")
    numbers = iter(struct.unpack_from(f"<{needed // 8}Q", wide))
    size = next(numbers) if size == MARK32 else size
    stored = next(numbers) if stored == MARK32 else stored
    header = next(numbers) if header == MARK32 else header
    return stored, size, header, 0 if disk == MARK16 else disk


def extra_field(extra: bytes, wanted: int) -> bytes | None:
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == wanted:
            return extra[at + 4 : at + 4 + length]
        at += 4 + length
    return None


def _check_plain(name: bytes, flags: int, method: int, same_size: bool, path: Path) -> None:
    """Refuse what torch never writes and a raw copy cannot carry."""
    if flags & _ENCRYPTED:
        raise FormatError(f"{path}: zip record {_show(name)} is encrypted; decrypt the file first")
    if method != 0:
        raise FormatError(
            f"{path}: zip record {_show(name)} is compressed (method {method}), which torch.save "
            "never does; unpack the file and pack it again without compression (zip -0)"
        )
    if not same_size:
        raise FormatError(f"{path}: zip record {_show(name)} has two different sizes")


def _safe_name(entry: _Entry, path: Path) -> str:
    """The record's name as text, unless it would lead out of a folder."""
    if not 0 < len(entry.name) <= MAX_NAME:
        raise LimitError(
            f"{path}: a zip record has a name of {len(entry.name)} bytes; 1 to {MAX_NAME} are read"
        )
    try:
        name = entry.name.decode("utf-8" if entry.flags & UTF8 else "cp437")
    except UnicodeDecodeError:
        raise FormatError(
            f"{path}: zip record {_show(entry.name)} has a name that is not UTF-8"
        ) from None
    parts = name.removesuffix("/").split("/")
    if "\0" in name or "\\" in name or name[1:2] == ":" or any(p in ("", ".", "..") for p in parts):
        raise UnsafePathError(
            f"{path}: zip record {_show(entry.name)} has a name that leads elsewhere"
        )
    return name


def _data_span(fd: int, entry: _Entry, end: int, path: Path) -> Span:
    """Where the record's bytes are, by its local header, which must agree with the directory."""
    if entry.header >= end:
        raise FormatError(f"{path}: zip record {_show(entry.name)} lies behind the zip directory")
    raw = os.pread(fd, LOCAL.size + len(entry.name), entry.header)
    if len(raw) < LOCAL.size + len(entry.name) or raw[:4] != b"PK\x03\x04":
        raise FormatError(f"{path}: zip record {_show(entry.name)} has no header at its offset")
    _, _, flags, method, _, _, crc, stored, size, name_length, extra_length = LOCAL.unpack_from(raw)
    _check_plain(entry.name, flags, method, stored == size, path)
    same = (crc, size) == (entry.crc, entry.size) or (crc == entry.crc and size == MARK32)
    if not same and not flags & DESCRIPTOR:
        raise FormatError(
            f"{path}: zip record {_show(entry.name)} has another size or CRC in its header"
        )
    if name_length != len(entry.name) or raw[LOCAL.size :] != entry.name:
        raise FormatError(f"{path}: zip record {_show(entry.name)} has another name in its header")
    start = entry.header + LOCAL.size + name_length + extra_length
    if start + entry.size > end:
        raise FormatError(f"{path}: zip record {_show(entry.name)} overlaps what follows it")
    return Span(path, start, entry.size)


def _show(name: bytes) -> str:
    """A record's name for a message, without control characters, not too long."""
    return ascii(name[:80].decode("utf-8", "replace"))


def record_text(records: Mapping[str, Record], name: str, limit: int = 256) -> str | None:
    """The text of a small record; None where there is none or it is no text."""
    record = records.get(name)
    if record is None or record.span.length > limit:
        return None
    try:
        return read_span(record.span).decode().strip()
    except UnicodeDecodeError:
        return None


def read_span(span: Span) -> bytes:
    """The bytes of a small span."""
    with span.file.open("rb") as file:
        raw = os.pread(file.fileno(), span.length, span.offset)
    if len(raw) != span.length:
        raise FormatError(f"{span.file}: ends before byte {span.offset + span.length}")
    return raw

"""Everything that is wrong with the zip of a torch file, not only the first thing.

torch.load takes much of what is found here: wrong checksums, records that stand twice, compressed
ones, bytes behind the end.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from liontool.checkpoint.document import Span
from liontool.checkpoint.formats.zip_records import (
    CENTRAL,
    DESCRIPTOR,
    END,
    END64,
    LOCAL,
    LOCATOR64,
    MARK16,
    MARK32,
    MAX_DIRECTORY,
    MAX_NAME,
    UTF8,
    extra_field,
)
from liontool.checkpoint.reading import BLOCK, opened, ranges
from liontool.inspect.checksums import WRONG, crc_of
from liontool.inspect.findings import Finding
from liontool.inspect.places import at, leads_out, odd_name, short

_END, _LINE, _HEADER = b"PK\x05\x06", b"PK\x01\x02", b"PK\x03\x04"
_TAIL = END.size + MARK16
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000
_DESCRIPTORS = (12, 16, 20, 24)
_SMALL = 1 << 16
_PROGRAMS = ("/constants.pkl", "/.data/extern_modules")


@dataclass(frozen=True)
class Entry:
    """A record as the directory has it.

    Attributes:
        name: Its name.
        span: Its bytes; None where its header is not at its place.
        crc: The CRC-32 that the directory claims.
        packed: Whether it is compressed or encrypted.
    """

    name: str
    span: Span | None
    crc: int
    packed: bool


@dataclass
class ZipWalk:
    """What was found.

    Attributes:
        entries: The records, in the order of the directory, as far as it can be read.
        findings: What is wrong.
        prefix: The folder that all records lie in, with its slash.
    """

    entries: list[Entry] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    prefix: str = ""

    @property
    def is_torch(self) -> bool:
        """Whether it is, or was, a file of torch.save: no program, no other kind of zip."""
        names = [entry.name for entry in self.entries]
        own = any(name.endswith("/data.pkl") or "/data/" in name for name in names)
        program = any(name.endswith(_PROGRAMS) or "/code/" in name for name in names)
        return not names or (own and not program)

    def named(self, name: str) -> Entry | None:
        """The record with a name below the folder, the last one of several."""
        full = self.prefix + name
        return next((e for e in reversed(self.entries) if e.name == full), None)


@dataclass(frozen=True)
class _Line:
    """A line of the directory."""

    name: bytes
    flags: int
    method: int
    crc: int
    stored: int
    size: int
    header: int


@dataclass(frozen=True)
class _Directory:
    offset: int
    size: int
    count: int
    end: int
    shift: int = 0


def walk(path: Path, file: str) -> ZipWalk:
    """All findings that need no storage to be read.

    Args:
        path: The file.
        file: What to call it; "" where it is all there is.
    """
    return _Walker(path, file).walk()


class _Walker:
    def __init__(self, path: Path, file: str) -> None:
        self.path = path
        self.file = file
        self.found = ZipWalk()

    def add(self, kind: str, part: str, text: str) -> None:
        self.found.findings.append(Finding(kind, at(self.file, part), text))

    def walk(self) -> ZipWalk:
        with opened(self.path) as fd:
            size = os.fstat(fd).st_size
            directory = self._directory(fd, size)
            if directory is None:
                self._whole_records()
                return self.found
            lines = self._lines(fd, directory)
            self._bytes_between(lines, [self._entry(fd, line, size) for line in lines], directory)
        self._names()
        self._torch_records()
        return self.found

    # --- the directory --------------------------------------------------------------------------

    def _directory(self, fd: int, size: int) -> _Directory | None:
        """Where the directory lies; the last end record that points to one is taken."""
        start = max(0, size - _TAIL)
        tail = os.pread(fd, size - start, start)
        place = tail.rfind(_END)
        if place < 0 or place + END.size > len(tail):
            return None
        _, _, _, here, count, length, offset, comment = END.unpack_from(tail, place)
        behind = len(tail) - place - END.size - comment
        if behind > 0:
            self.add("trailing-bytes", "", f"{behind:,} bytes follow the end of the zip file")
        elif behind < 0:
            self.add("cut-short", "", f"{-behind:,} bytes of the zip file's comment are missing")
        if here != count:
            self.add("bad-directory", "directory", "the zip file claims to be one of several parts")
        found = _Directory(offset, length, count, start + place)
        return self._shifted(fd, self._wide(fd, found))

    def _wide(self, fd: int, short_end: _Directory) -> _Directory:
        """The same by the end records of zip64, where there are some."""
        locator = short_end.end - LOCATOR64.size
        if locator < 0 or os.pread(fd, 4, locator) != b"PK\x06\x07":
            return short_end
        _, _, told, _ = LOCATOR64.unpack(os.pread(fd, LOCATOR64.size, locator))
        # Where bytes stand before the file, it is in its usual place all the same.
        for offset in (told, locator - END64.size):
            raw = os.pread(fd, END64.size, offset) if 0 <= offset < locator else b""
            if len(raw) == END64.size and raw[:4] == b"PK\x06\x06":
                break
        else:
            self.add("bad-directory", "directory", "the zip64 end is not where its locator says")
            return short_end
        *_, count, size, start = END64.unpack(raw)
        pairs = ((short_end.offset, start, MARK32), (short_end.size, size, MARK32),
                 (short_end.count, count, MARK16))  # fmt: skip
        if any(old not in (new, mark) for old, new, mark in pairs):
            self.add("bad-directory", "directory", "its two ends contradict each other")
        return _Directory(start, size, count, offset)

    def _shifted(self, fd: int, found: _Directory) -> _Directory | None:
        """The same where it really lies: before it, and so before everything, bytes may stand."""
        shift = found.end - found.offset - found.size
        if not shift:
            return found
        moved = found.offset + shift
        if shift > 0 and os.pread(fd, 4, moved) == _LINE:
            self.add("leading-bytes", "", f"{shift:,} bytes stand before the zip file begins")
            return _Directory(moved, found.size, found.count, found.end, shift)
        self.add("bad-directory", "directory", "it is not where the end of the file says")
        if os.pread(fd, 4, found.offset) != _LINE:
            return None
        return _Directory(found.offset, found.end - found.offset, found.count, found.end)

    def _lines(self, fd: int, directory: _Directory) -> list[_Line]:
        raw = os.pread(fd, max(0, min(directory.size, MAX_DIRECTORY)), directory.offset)
        lines: list[_Line] = []
        place = 0
        while place + CENTRAL.size <= len(raw) and raw[place : place + 4] == _LINE:
            place, line = _line(raw, place, directory.shift)
            if line is None:
                break
            lines.append(line)
        if place != len(raw) or len(lines) != directory.count:
            text = f"it should have {directory.count:,} lines, {len(lines):,} can be read"
            self.add("bad-directory", "directory", text)
        return lines

    # --- records --------------------------------------------------------------------------------

    def _entry(self, fd: int, line: _Line, size: int) -> Entry:
        """A record by its line and its own header, which must agree."""
        name = self._name(line)
        packed = bool(line.method or line.flags & _ENCRYPTED or line.stored != line.size)
        if packed:
            text = f"is compressed (method {line.method}) or encrypted; pack it again: zip -0"
            self.add("packed-record", name, text)
        span = None if packed else self._span(fd, line, name, size)
        entry = Entry(name, span, line.crc, packed)
        self.found.entries.append(entry)
        return entry

    def _name(self, line: _Line) -> str:
        try:
            name = line.name.decode("utf-8" if line.flags & UTF8 else "cp437")
        except UnicodeDecodeError:
            name = line.name.decode("utf-8", "surrogateescape")
        self.found.findings.extend(odd_name(at(self.file, name), name))
        parts = name.removesuffix("/").split("/")
        strange = "\0" in name or "\\" in name or name[1:2] == ":" or {"", "."} & set(parts)
        if leads_out(name) or strange or not 0 < len(line.name) <= MAX_NAME:
            self.add("unsafe-name", name, "its name is none of a record below a folder")
        return name

    def _span(self, fd: int, line: _Line, name: str, size: int) -> Span | None:
        raw = os.pread(fd, LOCAL.size + len(line.name), line.header) if line.header < size else b""
        if len(raw) < LOCAL.size + len(line.name) or raw[:4] != _HEADER:
            self.add("header-differs", name, "has no header where the directory says")
            return None
        _, _, flags, method, _, _, crc, stored, inner, name_length, extra = LOCAL.unpack_from(raw)
        told = flags & DESCRIPTOR and not (crc or stored or inner)  # sizes follow the data
        same = told or inner == MARK32 or (crc, stored, inner) == (line.crc, line.stored, line.size)
        if not same or method != line.method or (inner == MARK32 and crc not in (0, line.crc)):
            self.add("header-differs", name, "has another size, CRC or method in its own header")
        if name_length != len(line.name) or raw[LOCAL.size :] != line.name:
            self.add("header-differs", name, "has another name in its own header")
        begin = line.header + LOCAL.size + name_length + extra
        if begin + line.size > size:
            self.add("cut-short", name, f"{begin + line.size - size:,} of its bytes are missing")
            return None
        return Span(self.path, begin, line.size)

    def _bytes_between(
        self, lines: list[_Line], entries: list[Entry], directory: _Directory
    ) -> None:
        """Records that share bytes, and bytes of none."""
        known = [(line, e) for line, e in zip(lines, entries, strict=True) if e.span is not None]
        known.sort(key=lambda pair: pair[0].header)
        end, before, slack = directory.shift, "", False
        for line, entry in known:
            assert entry.span is not None
            self._gap(line.header - end, entry.name, before, slack)
            stop = entry.span.offset + entry.span.length
            if stop > end:
                end, before, slack = stop, entry.name, bool(line.flags & DESCRIPTOR)
        if len(known) == len(entries):
            self._gap(directory.offset - end, "the directory", before, slack)

    def _gap(self, gap: int, name: str, before: str, slack: bool) -> None:
        if gap < 0:
            self.add("overlap", name, f"begins before the end of {short(before) or 'the file'}")
        elif gap and not (slack and gap in _DESCRIPTORS):
            text = f"{gap:,} bytes stand between {short(before) or 'the beginning'} and it"
            self.add("unclaimed-bytes", name, text)

    def _names(self) -> None:
        """Names that stand twice, and records outside of the one folder."""
        names = [entry.name for entry in self.found.entries]
        counts: dict[str, int] = {}
        for name in names:
            counts[name] = counts.get(name, 0) + 1
        for name, count in counts.items():
            if count > 1:
                text = f"stands {count} times; torch takes the first, other readers the last"
                self.add("duplicate-record", name, text)
        self._names_alike(counts)
        self.found.prefix = names[0].partition("/")[0] + "/" if names else ""
        for name in counts:
            if not name.startswith(self.found.prefix):
                text = (
                    f"lies outside of {short(self.found.prefix)}, and torch.load refuses the file"
                )
                self.add("stray-record", name, f"{text}; take it out: zip -d")

    def _names_alike(self, names: Iterable[str]) -> None:
        """Names that differ in case alone: torch's own reader looks them up without it."""
        first: dict[str, str] = {}
        for name in names:
            other = first.setdefault(name.casefold(), name)
            if other != name:
                text = f"differs from '{short(other)}' in case alone, and torch takes either"
                self.add("duplicate-record", name, text)

    # --- what torch wants -----------------------------------------------------------------------

    def _torch_records(self) -> None:
        """Records that torch.load needs, and the checksums of all small ones."""
        found = self.found
        for name, why in (("data.pkl", "the tree of values"), ("version", "the format's version")):
            if found.named(name) is None and found.named(".data/version") is None:
                self.add("missing-record", found.prefix + name, f"{why} is missing")
        if found.named("byteorder") is None:
            self.add("no-byteorder", "", "has no record 'byteorder'; read as little-endian")
        if found.named(".data/serialization_id") is None:
            self.add("no-serialization-id", "", "was not written by torch.save itself")
        for entry in found.entries:
            self._check_small(entry)
        bare = [e.name for e in found.entries if e.span and e.span.length and not e.crc]
        if bare:
            text = f"{len(bare):,} records have no CRC-32, '{short(bare[0])}' first"
            self.add("no-crc", "", f"{text}; damage to them cannot be told")

    def _check_small(self, entry: Entry) -> None:
        """Bytes that are no tensor's: their checksum, and the byte order's word."""
        data = f"{self.found.prefix}data/"
        if entry.span is None or entry.name.startswith(data):
            return
        if entry.crc and crc_of(entry.span) != entry.crc:
            self.add("wrong-crc", entry.name, WRONG)
        if entry.name == f"{self.found.prefix}byteorder" and entry.span.length <= _SMALL:
            word = b"".join(map(bytes, ranges(entry.span, BLOCK))).strip()
            if word not in (b"little", b"big"):
                self.add("bad-byteorder", entry.name, f"says {short(repr(word)[1:])}")

    def _whole_records(self) -> None:
        """Without a directory: how much can be seen of the records."""
        names = list(_headers(self.path))
        text = "the directory at the end is missing: the file was cut (disk full, still copying?)"
        if names:
            text += f"; {len(names):,} records begin in it, the last is '{short(names[-1])}'"
        self.add("no-directory", "", text)


def _line(raw: bytes, place: int, shift: int) -> tuple[int, _Line | None]:
    """A line of the directory, and where the next one begins."""
    fields = CENTRAL.unpack_from(raw, place)
    name_at = place + CENTRAL.size
    extra_at = name_at + fields[10]
    after = extra_at + fields[11]
    following = after + fields[12]
    if following > len(raw):
        return place, None
    stored, size, header = fields[8], fields[9], fields[16]
    wide = extra_field(raw[extra_at:after], 0x0001) or b""
    numbers = iter(int.from_bytes(wide[i : i + 8], "little") for i in range(0, len(wide) - 7, 8))
    size = next(numbers, size) if size == MARK32 else size
    stored = next(numbers, stored) if stored == MARK32 else stored
    header = next(numbers, header) if header == MARK32 else header
    name = raw[name_at:extra_at]
    return following, _Line(name, fields[3], fields[4], fields[7], stored, size, header + shift)


def _headers(path: Path) -> Iterator[str]:
    """Names in the headers of records, wherever they stand in the file."""
    with opened(path) as fd:
        size = os.fstat(fd).st_size
        step = BLOCK - LOCAL.size
        for offset in range(0, size, step):
            block = os.pread(fd, BLOCK, offset)
            place = block.find(_HEADER)
            while 0 <= place < step:
                name = _header_name(os.pread(fd, LOCAL.size + MAX_NAME, offset + place))
                if name:
                    yield name
                place = block.find(_HEADER, place + 4)


def _header_name(raw: bytes) -> str:
    """The name in a record's header; "" where the bytes are none."""
    if len(raw) < LOCAL.size:
        return ""
    length = LOCAL.unpack_from(raw)[9]
    name = raw[LOCAL.size : LOCAL.size + length].decode("utf-8", "replace")
    return name if 0 < length <= MAX_NAME and "/" in name and name.isprintable() else ""

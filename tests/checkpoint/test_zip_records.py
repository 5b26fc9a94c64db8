"""Zip records: what torch writes is read and laid out again, and nothing else is believed."""

from __future__ import annotations

import os
import random
import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from liontool.checkpoint import copying
from liontool.checkpoint.copying import Checksum, Literal, Raw
from liontool.checkpoint.document import Span
from liontool.checkpoint.formats import zip_records, zip_writer
from liontool.checkpoint.formats.zip_records import read_records, read_span, record_text
from liontool.checkpoint.formats.zip_writer import ZipWriter
from liontool.errors import FormatError, LimitError, LiontoolError, UnsafePathError

CONTENTS = {
    "a/data.pkl": b"pickle",
    "a/data/0": bytes(range(200)),
    "a/data/1": b"",
    "a/version": b"3\n",
}


def save(path: Path, pieces: list[copying.Piece]) -> Path:
    with path.open("wb") as file:
        copying.write(pieces, file.fileno())
    return path


def written(path: Path, contents: dict[str, bytes], alignment: int = 64) -> Path:
    writer = ZipWriter(alignment)
    for name, data in contents.items():
        writer.add(name, [Literal(data)], zlib.crc32(data))
    return save(path, writer.finish())


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return written(tmp_path / "a.pt", CONTENTS)


def test_what_is_written_is_read(archive: Path) -> None:
    """Names, order, bytes and CRCs come back."""
    records = read_records(archive)
    assert {name: read_span(record.span) for name, record in records.items()} == CONTENTS
    assert list(records) == list(CONTENTS)
    assert all(record.crc == zlib.crc32(CONTENTS[name]) for name, record in records.items())


def test_python_reads_what_is_written(archive: Path) -> None:
    """The standard library finds every record whole."""
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        assert {name: file.read(name) for name in file.namelist()} == CONTENTS


@pytest.mark.parametrize("alignment", [1, 64, 4096])
def test_data_is_aligned(tmp_path: Path, alignment: int) -> None:
    """Every record's data begins at a multiple of the alignment."""
    records = read_records(written(tmp_path / "a.pt", CONTENTS, alignment))
    assert {record.span.offset % alignment for record in records.values()} == {0}


def test_late_checksum(tmp_path: Path, archive: Path) -> None:
    """A CRC that is added up while copying ends up in descriptor and directory."""
    span = read_records(archive)["a/data/0"].span
    writer, checksum = ZipWriter(), Checksum()
    writer.add("a/data/0", [Raw(span, crc=checksum)], checksum)
    copy = save(tmp_path / "b.pt", writer.finish())
    assert read_records(copy)["a/data/0"].crc == zlib.crc32(CONTENTS["a/data/0"])
    with zipfile.ZipFile(copy) as file:
        assert file.testzip() is None


def test_zip64_fields(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where 32 bits are too few, the fields of zip64 are written and read."""
    monkeypatch.setattr(zip_writer, "ZIP32_MAX", 100)
    path = written(tmp_path / "a.pt", CONTENTS)
    assert {n: read_span(r.span) for n, r in read_records(path).items()} == CONTENTS
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        assert [entry.file_size for entry in file.infolist()] == [6, 200, 0, 2]


def test_more_than_four_gigabytes(tmp_path: Path) -> None:
    """A sparse record of more than 4 GiB, and one behind it, are found where they are."""
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate((4 << 30) + 8)
        file.seek(4 << 30)
        file.write(b"the end.")
    writer = ZipWriter()
    writer.add("a/data/0", [Raw(Span(big, 0, (4 << 30) + 8))], 1)
    writer.add("a/data/1", [Literal(b"behind")], zlib.crc32(b"behind"))
    path = save(tmp_path / "a.pt", writer.finish())
    assert path.stat().st_blocks < 1 << 15, "holes stay holes"
    records = read_records(path)
    last = records["a/data/0"].span
    assert read_span(Span(path, last.offset + (4 << 30), 8)) == b"the end."
    assert read_span(records["a/data/1"].span) == b"behind"
    with zipfile.ZipFile(path) as file:
        assert file.read("a/data/1") == b"behind"
        assert file.getinfo("a/data/0").file_size == (4 << 30) + 8


def test_record_text(archive: Path) -> None:
    """Small text records are stripped; long, absent and binary ones are None."""
    records = read_records(archive)
    assert record_text(records, "a/version") == "3"
    assert record_text(records, "a/nothing") is None
    assert record_text(records, "a/data/0") is None
    assert record_text(records, "a/version", limit=1) is None


def zipped(path: Path, contents: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in contents.items():
            file.writestr(name, data)
    return path


def test_python_zip_is_read(tmp_path: Path) -> None:
    """An archive that somebody unpacked and packed again without compression is read."""
    records = read_records(zipped(tmp_path / "a.pt", CONTENTS))
    assert {name: read_span(record.span) for name, record in records.items()} == CONTENTS


def test_compressed_record(tmp_path: Path) -> None:
    """Compressed records are refused with the way out."""
    path = zipped(tmp_path / "a.pt", CONTENTS, zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match=r"'a/data.pkl' is compressed .*zip -0"):
        read_records(path)


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/./b", "C:/x", "a\\b"]
)
def test_names_that_climb(tmp_path: Path, name: str) -> None:
    """Names that lead out of the archive are refused."""
    path = written(tmp_path / "a.pt", {name: b"x"})
    with pytest.raises(UnsafePathError, match="leads elsewhere"):
        read_records(path)


def test_names_are_escaped(tmp_path: Path) -> None:
    """A name with control characters reaches no terminal as it is."""
    path = written(tmp_path / "a.pt", {"../\x1b[31m": b"x"})
    with pytest.raises(UnsafePathError) as caught:
        read_records(path)
    assert "\x1b" not in str(caught.value)


def test_long_name(tmp_path: Path) -> None:
    """A name longer than any path is refused."""
    with pytest.raises(LimitError, match="name of 5000 bytes"):
        read_records(written(tmp_path / "a.pt", {"a" * 5000: b"x"}))


def test_duplicate_names(tmp_path: Path) -> None:
    """Two records of one name are refused: readers would differ in which one they take."""
    writer = ZipWriter()
    writer.add("a/b", [Literal(b"1")], zlib.crc32(b"1"))
    writer.add("a/b", [Literal(b"2")], zlib.crc32(b"2"))
    with pytest.raises(FormatError, match="two zip records are named 'a/b'"):
        read_records(save(tmp_path / "a.pt", writer.finish()))


def test_too_many_entries(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More records than the limit are refused before they are looked at."""
    monkeypatch.setattr(zip_records, "MAX_ENTRIES", 3)
    with pytest.raises(LimitError, match="claims 4 records"):
        read_records(archive)


def changed(path: Path, at: int, data: bytes) -> Path:
    raw = bytearray(path.read_bytes())
    at = at % len(raw)
    raw[at : at + len(data)] = data
    path.write_bytes(raw)
    return path


def line_of(path: Path, number: int) -> int:
    """Offset of a line of the central directory."""
    at = -1
    for _ in range(number + 1):
        at = path.read_bytes().index(b"PK\x01\x02", at + 1)
    return at


DAMAGES = {
    "no records end": (lambda p: changed(p, -22, b"xx"), "cut short"),
    "trailing bytes": (lambda p: p.write_bytes(p.read_bytes() + b"x"), "other bytes follow"),
    "leading bytes": (lambda p: p.write_bytes(b"x" + p.read_bytes()), "not where the end"),
    "count too big": (lambda p: changed(p, -14, b"\xf0\xf0\xf0\xf0"), "too small for its"),
    "count too small": (lambda p: changed(p, -14, b"\3\0\3\0"), "more in it than its 3"),
    "several disks": (lambda p: changed(p, -18, b"\1\0"), "several parts"),
    "encrypted": (lambda p: changed(p, line_of(p, 1) + 8, b"\1"), "'a/data/0' is encrypted"),
    "folder": (lambda p: changed(p, line_of(p, 1) + 38, b"\x10"), "'a/data/0' is a folder with"),
    "two sizes": (lambda p: changed(p, line_of(p, 1) + 20, b"\1"), "'a/data/0' has two different"),
    "size too big": (
        lambda p: changed(p, line_of(p, 1) + 20, struct.pack("<II", 1 << 20, 1 << 20)),
        "'a/data/0' overlaps what follows",
    ),
    "offset too big": (
        lambda p: changed(p, line_of(p, 1) + 42, struct.pack("<I", 1 << 30)),
        "'a/data/0' lies behind",
    ),
    "offset off": (
        lambda p: changed(p, line_of(p, 1) + 42, struct.pack("<I", 72)),
        "'a/data/0' has no header",
    ),
    "same offset": (
        lambda p: changed(p, line_of(p, 1) + 42, struct.pack("<I", 0)),
        "'a/data/0' has another name in its header",
    ),
    "zip64 missing": (
        lambda p: changed(p, line_of(p, 1) + 20, b"\xff" * 8),
        "'a/data/0' lacks its zip64",
    ),
    "other name": (lambda p: changed(p, line_of(p, 1) + 46, b"b"), "another name in its header"),
    "not utf-8": (lambda p: changed(p, line_of(p, 1) + 46, b"\xff"), "not UTF-8"),
    "local compressed": (lambda p: changed(p, 8, b"\x08"), "'a/data.pkl' is compressed"),
    "local CRC": (lambda p: changed(p, 6, b"\x00"), "another size or CRC"),
    "line damaged": (lambda p: changed(p, line_of(p, 1), b"XX"), "line 1 of the zip directory"),
    "line cut": (lambda p: changed(p, line_of(p, 3) + 30, b"\xff"), "line 3 .* cut short"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_named(archive: Path, damage: str) -> None:
    """Each contradiction has an error of its own, which names file and record."""
    make, message = DAMAGES[damage]
    make(archive)
    with pytest.raises(FormatError, match=message) as caught:
        read_records(archive)
    assert str(archive) in str(caught.value)


def test_cut_at_every_length(archive: Path) -> None:
    """A file that was cut anywhere is refused."""
    raw = archive.read_bytes()
    for length in range(0, len(raw), 7):
        archive.write_bytes(raw[:length])
        with pytest.raises(FormatError):
            read_records(archive)


@pytest.mark.parametrize("zip64", [False, True])
def test_mutations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64: bool) -> None:
    """With random bytes changed a file is refused, or its records lie inside it without overlap."""
    if zip64:
        monkeypatch.setattr(zip_writer, "ZIP32_MAX", 100)
    raw = written(tmp_path / "a.pt", CONTENTS).read_bytes()
    start = raw.index(b"PK\x01\x02")
    numbers = random.Random(7)
    path, refused = tmp_path / "b.pt", 0
    for _ in range(600):
        data = bytearray(raw)
        for _ in range(numbers.randint(1, 4)):
            at = numbers.randrange(start if numbers.random() < 0.8 else 0, len(data))
            data[at] = numbers.choice([0, 1, 0x7F, 0xFF, numbers.randrange(256)])
        path.write_bytes(data)
        try:
            records = read_records(path)
        except LiontoolError as error:
            assert "\n" not in str(error), "one line"  # noqa: PT017
            refused += 1
            continue
        spans = sorted((r.span.offset, r.span.length) for r in records.values())
        ends = [0, *(offset + length for offset, length in spans)]
        assert all(end <= offset for end, (offset, _) in zip(ends, spans, strict=False))
        assert ends[-1] <= len(data)
    assert refused > 300


def test_unreadable_is_os_error(tmp_path: Path) -> None:
    """What the system refuses is left to the caller, who names the file once for all formats."""
    with pytest.raises(OSError, match="No such file"):
        read_records(tmp_path / "none")
    assert os.listdir(tmp_path) == []

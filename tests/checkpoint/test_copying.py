"""Pieces become one file, by every way of copying."""

from __future__ import annotations

import errno
import os
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from liontool.checkpoint import copying, publish
from liontool.checkpoint.copying import Checksum, Late, Literal, Piece, Raw, Stream
from liontool.checkpoint.document import Computed, Span, Storage, Stored, TensorRef
from liontool.checkpoint.system import SYSTEM
from liontool.errors import NoSpaceError, PublishError, ReadError, RefusedError, SourceChangedError
from support.faults import Faults, unsupported
from support.stored import raw_bytes, stored

WAYS = {
    "copy_file_range": (),
    "sendfile": ("copy_file_range",),
    "read and write": ("copy_file_range", "sendfile"),
}
MIB = 1 << 20


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each way of copying in turn: those before it are not supported."""
    unsupported(monkeypatch, errno.EXDEV, *WAYS[request.param])
    return str(request.param)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three megabytes and a bit of random bytes."""
    path = tmp_path / "source"
    path.write_bytes(random.Random(0).randbytes(3 * MIB + 1001))
    return path


def written(
    tmp_path: Path, pieces: Sequence[Piece], progress: Callable[[int], None] | None = None
) -> bytes:
    path = tmp_path / "out"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        copying.write(pieces, fd, progress)
    finally:
        os.close(fd)
    data = path.read_bytes()
    assert len(data) == copying.total(pieces)
    return data


def sparse(path: Path, size: int, data: dict[int, bytes]) -> Path:
    """A file with a few bytes among holes."""
    with path.open("wb") as file:
        file.truncate(size)
        for offset, piece in data.items():
            file.seek(offset)
            file.write(piece)
    return path


# --- bytes --------------------------------------------------------------------------------------


def test_pieces_follow_one_another(tmp_path: Path, source: Path, way: str) -> None:
    """Literals, ranges, streams and late bytes stand in the order of the list."""
    data = source.read_bytes()
    tensor = TensorRef("uint8", (5,), Computed(lambda: iter([b"st", memoryview(b"ream"[:3])])))
    pieces = [
        Literal(b"head"),
        Raw(Span(source, 1, 2 * MIB)),
        Stream(tensor),
        Raw(Span(source, 5, 0)),
        Raw(Span(source, 2 * MIB, MIB + 1001)),
        Late(4, lambda: b"tail"),
    ]
    expected = b"head" + data[1 : 2 * MIB + 1] + b"strea" + data[2 * MIB :] + b"tail"
    assert written(tmp_path, pieces) == expected


def test_nothing_is_a_file_too(tmp_path: Path) -> None:
    """No pieces make an empty file."""
    assert written(tmp_path, []) == b""


def test_short_counts_are_continued(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """The system may do less than it was asked for."""
    real = vars(SYSTEM).copy()
    monkeypatch.setattr(SYSTEM, "write", lambda fd, data: real["write"](fd, data[:70_001]))
    monkeypatch.setattr(
        SYSTEM, "preadv", lambda fd, views, at: real["preadv"](fd, [views[0][:60_013]], at)
    )
    monkeypatch.setattr(
        SYSTEM,
        "copy_file_range",
        lambda a, b, n, at: real["copy_file_range"](a, b, min(n, 50_021), at),
    )
    monkeypatch.setattr(
        SYSTEM, "sendfile", lambda a, b, at, n: real["sendfile"](a, b, at, min(n, 40_009))
    )
    pieces = [Raw(Span(source, 3, 3 * MIB))]
    assert written(tmp_path, pieces) == source.read_bytes()[3 : 3 * MIB + 3]


def test_a_way_that_ends_early_is_left(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some file systems say 0 instead of an error."""
    monkeypatch.setattr(SYSTEM, "copy_file_range", lambda *_: 0)
    monkeypatch.setattr(SYSTEM, "sendfile", lambda *_: 0)
    assert written(tmp_path, [Raw(Span(source, 0, 2 * MIB))]) == source.read_bytes()[: 2 * MIB]


def test_neighbours_are_copied_in_one_go(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand tensors that lie side by side cost one call."""
    faults = Faults(monkeypatch, OSError, fail_at=10**9)
    pieces = [Raw(Span(source, i * 1000, 1000)) for i in range(1000)]
    assert written(tmp_path, pieces) == source.read_bytes()[:1_000_000]
    assert faults.names.count("copy_file_range") == 1


def test_many_sources_are_open_one_at_a_time(tmp_path: Path) -> None:
    """More shards than a process may have open files."""
    import resource

    files = [tmp_path / f"shard-{i}" for i in range(200)]
    for i, file in enumerate(files):
        file.write_bytes(bytes([i]) * 10)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
    try:
        data = written(tmp_path, [Raw(Span(file, 0, 10)) for file in files])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert data == b"".join(bytes([i]) * 10 for i in range(200))


def test_progress_adds_up(tmp_path: Path, source: Path, way: str) -> None:
    """Every byte of the result is counted once, holes included."""
    holes = sparse(tmp_path / "holes", 8 * MIB, {MIB: b"x"})
    tensor = TensorRef("uint8", (8 * MIB,), Stored(Storage(Span(holes, 0, 8 * MIB)), (1,)))
    pieces = [
        Literal(b"abc"),
        Raw(Span(source, 0, 2 * MIB)),
        Raw(Span(holes, 0, 8 * MIB)),
        Raw(Span(holes, 0, 8 * MIB), crc=Checksum()),
        Stream(tensor),
    ]
    counts: list[int] = []
    written(tmp_path, pieces, counts.append)
    assert sum(counts) == copying.total(pieces)


@pytest.mark.parametrize("piece", [Late(3, lambda: b"four"), Literal(b"")])
def test_late_bytes_must_be_as_long_as_promised(tmp_path: Path, piece: Piece) -> None:
    """What was promised in a header holds."""
    if isinstance(piece, Literal):
        piece = Stream(TensorRef("uint8", (3,), Computed(lambda: iter([b"four"])), "t"))
    with pytest.raises(ValueError, match=r"a piece of 3 bytes .* 4|t: 4 bytes instead of 3"):
        written(tmp_path, [piece])


def test_the_disk_begins_before_the_flush(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Finished ranges are handed to the disk in order; that it does not want them is no error."""
    ranges: list[tuple[int, int]] = []

    def push(_: int, offset: int, length: int) -> None:
        ranges.append((offset, length))
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(SYSTEM, "push", push)
    monkeypatch.setattr(copying, "_PUSH", MIB)
    written(tmp_path, [Literal(bytes(MIB)), Raw(Span(source, 0, MIB)), Literal(bytes(100))])
    assert ranges == [(0, MIB), (MIB, MIB)]


# --- holes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("crc", [False, True])
def test_holes_stay_holes(tmp_path: Path, way: str, crc: bool) -> None:
    """A sparse gigabyte takes a few blocks in the copy too."""
    size = 1 << 30 if not crc else 1 << 26
    file = sparse(tmp_path / "holes", size, {0: b"begin", size // 2 + 7: b"middle"})
    checksum = Checksum() if crc else None
    pieces = [Literal(b"head"), Raw(Span(file, 0, size), crc=checksum)]
    assert copying.needed(pieces) < 100_000
    fd = os.open(tmp_path / "out", os.O_RDWR | os.O_CREAT)
    try:
        copying.write(pieces, fd)
        status = os.fstat(fd)
        assert status.st_size == size + 4
        assert status.st_blocks * 512 < 4 * MIB
        assert os.pread(fd, 9, 0) == b"headbegin"
        assert os.pread(fd, 8, 4 + size // 2 + 6) == b"\0middle\0"[:8]
    finally:
        os.close(fd)
    if checksum is not None:
        assert checksum.value == zlib.crc32(file.read_bytes())


@pytest.mark.parametrize("start", [0, 1, 4096, MIB - 1, 3 * MIB + 5, 6 * MIB])
def test_ranges_of_a_sparse_file(tmp_path: Path, way: str, start: int) -> None:
    """A range may begin and end in a hole or in data."""
    file = sparse(tmp_path / "holes", 8 * MIB, {MIB: b"x" * 5000, 3 * MIB: b"y" * MIB})
    data = file.read_bytes()
    for length in (0, 1, MIB + 3, 2 * MIB):
        pieces = [Literal(b"!"), Raw(Span(file, start, length)), Literal(b"?")]
        assert written(tmp_path, pieces) == b"!" + data[start : start + length] + b"?"


def test_a_file_system_that_knows_no_holes(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then all is data."""
    real = os.lseek

    def lseek(fd: int, offset: int, whence: int) -> int:
        if whence in (os.SEEK_DATA, os.SEEK_HOLE):
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(fd, offset, whence)

    monkeypatch.setattr(SYSTEM, "lseek", lseek)
    pieces = [Raw(Span(source, 7, 2 * MIB))]
    assert copying.needed(pieces) == 2 * MIB
    assert written(tmp_path, pieces) == source.read_bytes()[7 : 2 * MIB + 7]


def test_needed_counts_what_lies_on_disk(tmp_path: Path, source: Path) -> None:
    """Everything that is no hole of a source."""
    tensor = TensorRef("float32", (10,), Computed(lambda: iter([bytes(40)])))
    pieces = [Literal(b"abc"), Raw(Span(source, 1, 1000)), Stream(tensor), Late(7, lambda: b"")]
    assert copying.needed(pieces) == 3 + 1000 + 40 + 7


# --- checks -------------------------------------------------------------------------------------


def test_checksums_run_over_pieces(tmp_path: Path, source: Path) -> None:
    """One CRC-32 over a range and a stream, known when the bytes after them are made."""
    tensor = stored(tmp_path / "t", torch.arange(12.0).reshape(3, 4).t())
    crc = Checksum()
    pieces: list[Piece] = [
        Raw(Span(source, 5, 2 * MIB), crc=crc),
        Stream(tensor, crc=crc),
        Late(4, lambda: crc.value.to_bytes(4, "little")),
    ]
    data = written(tmp_path, pieces)
    assert int.from_bytes(data[-4:], "little") == zlib.crc32(data[:-4])


def moments(size: int, bad: Sequence[int] = (), dtype: torch.dtype = torch.float32) -> torch.Tensor:
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(dtype)
    tensor[list(bad)] = float("nan")
    return tensor


@pytest.mark.parametrize("before", [b"", b"odd", b"x" * (MIB - 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("order", ["little", "big"])
def test_a_scanned_tensor_is_copied_if_it_is_finite(
    tmp_path: Path, before: bytes, dtype: torch.dtype, order: str
) -> None:
    """Looking changes nothing, wherever the tensor begins in its file."""
    tensor = stored(tmp_path / "t", moments(700_001, dtype=dtype), before=before, byteorder=order)
    assert isinstance(tensor.source, Stored)
    piece = Raw(tensor.source.storage.span, scan=(tensor,))
    assert written(tmp_path, [piece]) == (tmp_path / "t").read_bytes()[len(before) : -5]


@pytest.mark.parametrize("bad", [[0], [349_999], [700_000], [5, 400_000, 700_000]])
@pytest.mark.parametrize("before", [b"", b"odd"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("kind", ["raw", "stream", "view", "whole storage"])
def test_nan_is_refused(
    tmp_path: Path, bad: list[int], before: bytes, order: str, kind: str
) -> None:
    """The message has the tensor, how many numbers are bad, and the way out."""
    data = moments(700_001, bad)
    if kind == "view":
        data = torch.stack([data, data]).t()[:, 1]
    label = "state.7.exp_avg"
    tensor = stored(tmp_path / "t", data, before=before, byteorder=order, label=label)
    assert isinstance(tensor.source, Stored)
    whole = tensor.source.storage.span
    pieces: dict[str, Piece] = {
        "raw": Raw(whole, scan=(tensor,)),
        "stream": Stream(tensor, scan=True),
        "view": Raw(whole, scan=(tensor,)),
        "whole storage": copying.of_tensor(tensor, scan=True),
    }
    with pytest.raises(
        RefusedError,
        match=rf"{label}: the first moment has {len(bad)} non-finite values .* among 700001; "
        "to go on all the same: --allow nonfinite",
    ) as caught:
        written(tmp_path, [pieces[kind]])
    assert caught.value.id == "nonfinite"


def test_without_a_scan_nan_is_copied(tmp_path: Path) -> None:
    """Weights are nobody's business, and `--allow` leaves the scan away."""
    tensor = stored(tmp_path / "t", moments(1000, [3]))
    assert len(written(tmp_path, [copying.of_tensor(tensor)])) == 4000


def test_only_the_named_tensors_of_a_range_are_looked_at(tmp_path: Path) -> None:
    """Bytes between the scanned tensors may be anything."""
    whole = moments(100_000)
    whole[30_000:60_000] = float("nan")
    ref = stored(tmp_path / "t", whole)
    assert isinstance(ref.source, Stored)
    storage = ref.source.storage
    first = TensorRef("float32", (30_000,), Stored(storage, (1,)))
    again = TensorRef("float32", (100, 100), Stored(storage, (1, 100), 5))
    empty = TensorRef("float32", (0,), Stored(storage, (1,), 40_000))
    last = TensorRef("float32", (40_000,), Stored(storage, (1,), 60_000))
    scan = (last, again, first, first, empty)
    crc = Checksum()
    data = written(tmp_path, [Raw(storage.span, scan=scan, crc=crc)])
    assert data == raw_bytes(whole)
    assert crc.value == zlib.crc32(data)
    bad = TensorRef("float32", (40_001,), Stored(storage, (1,), 59_999), "bad")
    with pytest.raises(RefusedError, match="bad: the first moment has 1 non-finite"):
        written(tmp_path, [Raw(storage.span, scan=(first, bad, last))])


def test_of_tensor_copies_raw_where_it_can(tmp_path: Path) -> None:
    """Raw for what lies in order and little-endian, else a stream; the bytes are the same."""
    data = moments(600)
    whole = data.reshape(20, 30)
    cases = [
        (stored(tmp_path / "1", whole), Raw),
        (stored(tmp_path / "2", whole[3:7]), Raw),
        (stored(tmp_path / "3", whole.t()), Stream),
        (stored(tmp_path / "4", whole, byteorder="big"), Stream),
        (stored(tmp_path / "5", whole.to(torch.int8), byteorder="big"), Raw),
    ]
    views = [whole, whole[3:7], whole.t(), whole, whole.to(torch.int8)]
    for (tensor, kind), view in zip(cases, views, strict=True):
        piece = copying.of_tensor(tensor, scan=True)
        assert type(piece) is kind
        assert written(tmp_path, [piece]) == raw_bytes(view)


# --- failures -----------------------------------------------------------------------------------


def test_a_source_that_shrinks_is_named(tmp_path: Path, source: Path) -> None:
    """A range that has gone is a changed source."""
    with pytest.raises(SourceChangedError, match="source: is shorter than when it was first read"):
        written(tmp_path, [Raw(Span(source, 3 * MIB, 1002))])


def test_a_source_that_shrinks_during_the_copy(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when it happens after the first look."""
    unsupported(monkeypatch, errno.ENOSYS, "copy_file_range", "sendfile")
    monkeypatch.setattr(SYSTEM, "preadv", lambda *_: 0)
    with pytest.raises(SourceChangedError, match="source: is shorter"):
        written(tmp_path, [Raw(Span(source, 0, MIB))])


def test_a_source_that_cannot_be_read_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of the source is never blamed on the target."""
    unsupported(monkeypatch, errno.EIO, "copy_file_range", "sendfile", "preadv")
    with pytest.raises(ReadError, match="source: cannot be read: not supported here"):
        written(tmp_path, [Raw(Span(source, 0, MIB))])


@pytest.mark.parametrize("name", ["copy_file_range", "sendfile", "write"])
def test_a_full_disk_is_reported_by_every_way(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """No space is no reason to try another way of copying."""
    before = list(WAYS["read and write"])
    before = before[: before.index(name)] if name in before else before
    unsupported(monkeypatch, errno.EXDEV, *before)
    unsupported(monkeypatch, errno.ENOSPC, name)
    with (
        pytest.raises(NoSpaceError, match="out: needs 1,048,576 bytes"),
        publish.new_file(tmp_path / "out", size=MIB, force=False) as out,
    ):
        copying.write([Raw(Span(source, 0, MIB))], out.fd)
    assert os.listdir(tmp_path) == ["source"]


@pytest.mark.parametrize("error", ["EIO", "Ctrl-C"])
def test_each_call_of_a_copy_may_fail(tmp_path: Path, error: str, way: str) -> None:
    """Whichever call fails, there is the whole result or nothing at all."""
    holes = sparse(tmp_path / "holes", 4 * MIB, {MIB: b"x", 3 * MIB: b"y"})
    tensor = stored(tmp_path / "t", moments(270_000).reshape(1000, 270).t())
    pieces = [
        Literal(b"head"),
        Raw(Span(holes, 0, 4 * MIB)),
        Raw(Span(holes, 5, 3 * MIB), crc=Checksum()),
        Stream(tensor, scan=True),
    ]
    expected = written(tmp_path, pieces)
    (tmp_path / "out").unlink()
    make = KeyboardInterrupt if error == "Ctrl-C" else lambda: OSError(errno.EIO, "I/O error")
    folder = tmp_path / "folder"
    struck, number = True, 0
    while struck:
        folder.mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SYSTEM, "fsync", lambda _: None)  # the disk would take most of the time
            faults = Faults(patch, make, number)
            try:
                with publish.new_file(folder / "x", size=10, force=False) as out:
                    copying.write(pieces, out.fd)
                assert (folder / "x").read_bytes() == expected
                (folder / "x").unlink()
            except (PublishError, ReadError, KeyboardInterrupt):
                pass
            struck = faults.struck
        folder.rmdir()  # fails if anything is left
        number += 1
    assert number > 20


def test_memory_stays_small(tmp_path: Path) -> None:
    """Copying, scanning and gathering 64 MiB need a few buffers of 1 MiB."""

    def anonymous() -> int:
        text = Path("/proc/self/status").read_text()
        return int(text.split("RssAnon:")[1].split()[0])

    file = tmp_path / "big"
    np.ones(16 * MIB, np.float32).tofile(file)
    storage = Storage(Span(file, 0, 64 * MIB))
    flat = TensorRef("float32", (16 * MIB,), Stored(storage, (1,)))
    view = TensorRef("float32", (4096, 4096), Stored(storage, (1, 4096)))
    pieces = [Raw(storage.span), copying.of_tensor(flat, scan=True), Stream(view, scan=True)]
    before, peak = anonymous(), 0

    def look(_: int) -> None:
        nonlocal peak
        peak = max(peak, anonymous())

    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    try:
        copying.write(pieces, fd, look)
    finally:
        os.close(fd)
    assert peak - before < 16 * 1024

"""From pieces to a file: what is in another file already is copied by the kernel, holes and all.

A file to be written is a list of pieces whose lengths are known beforehand, so that space can be
checked and headers written first. Bytes pass through this process only where it must look at them.
"""

from __future__ import annotations

import errno
import os
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint import reading, values
from liontool.checkpoint.document import ITEM_SIZES, Span, Stored, TensorRef
from liontool.checkpoint.reading import BLOCK, open_file, read_into, too_short
from liontool.checkpoint.system import SYSTEM
from liontool.errors import RefusedError

_KERNEL_BLOCK = 1 << 24  # small enough for a live progress bar and for Ctrl-C
_PUSH = 1 << 24
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Checksum:
    """A running CRC-32 over all pieces that it is given to."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0

    def update(self, data: bytes | memoryview) -> None:
        """Append `data`."""
        self.value = zlib.crc32(data, self.value)


@dataclass(frozen=True, slots=True)
class Literal:
    """Bytes that are there already: headers, pickles, padding."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Raw:
    """A range of another file as it is.

    Attributes:
        span: The range.
        scan: Tensors inside the range that must be free of NaN and infinity.
        crc: Where to add up the CRC-32 of the range.
    """

    span: Span
    scan: tuple[TensorRef, ...] = ()
    crc: Checksum | None = None

    @property
    def length(self) -> int:
        return self.span.length


@dataclass(frozen=True, slots=True)
class Stream:
    """The elements of a tensor in order, little-endian: computed, or gathered from a storage.

    Attributes:
        tensor: The tensor.
        scan: Whether it must be free of NaN and infinity.
        crc: Where to add up the CRC-32 of the bytes.
    """

    tensor: TensorRef
    scan: bool = False
    crc: Checksum | None = None

    @property
    def length(self) -> int:
        return self.tensor.nbytes


@dataclass(frozen=True, slots=True)
class Late:
    """Bytes that are known only when the pieces before them are written."""

    length: int
    make: Callable[[], bytes]


Piece = Literal | Raw | Stream | Late


def of_tensor(tensor: TensorRef, *, scan: bool = False, crc: Checksum | None = None) -> Piece:
    """The piece for a tensor's elements in order, little-endian: Raw if a file has them so."""
    source = tensor.source
    if not isinstance(source, Stored) or not tensor.is_contiguous:
        return Stream(tensor, scan, crc)
    size = ITEM_SIZES[tensor.dtype]
    if source.storage.byteorder != "little" and size > 1:
        return Stream(tensor, scan, crc)
    return Raw(values.span_of(tensor), (tensor,) if scan else (), crc)


def total(pieces: Iterable[Piece]) -> int:
    """Length of the file that the pieces make."""
    return sum(piece.length for piece in pieces)


def needed(pieces: Iterable[Piece]) -> int:
    """Bytes that the file takes on disk: holes of the sources stay holes."""
    with _Sources() as sources:
        return sum(
            sum(stop - start for start, stop in sources.extents(piece.span))
            if isinstance(piece, Raw)
            else piece.length
            for piece in _merged(pieces)
        )


def write(pieces: Iterable[Piece], fd: int, progress: Callable[[int], None] | None = None) -> None:
    """Write the pieces one after the other.

    Args:
        pieces: What to write.
        fd: A fresh file, open for writing.
        progress: Called with the number of bytes that were added to the file.

    Raises:
        RefusedError: A tensor to be scanned holds NaN or infinity (id "nonfinite").
        SourceChangedError: A source is shorter than it was.
        ReadError: A source cannot be read.
        OSError: The file cannot be written.
    """
    with _Sources() as sources:
        writer = _Writer(fd, sources, progress or (lambda _: None))
        for piece in _merged(pieces):
            writer.put(piece)
        # A hole at the end becomes part of the file only this way.
        SYSTEM.ftruncate(fd, SYSTEM.lseek(fd, 0, os.SEEK_CUR))


def _merged(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """The pieces with plain ranges that follow one another in a source made one."""
    last: Raw | None = None
    for piece in pieces:
        if not isinstance(piece, Raw) or piece.scan or piece.crc is not None:
            if last is not None:
                yield last
            last = None
            yield piece
        elif last is not None and _follows(last.span, piece.span):
            span = Span(last.span.file, last.span.offset, last.length + piece.length)
            last = Raw(span)
        else:
            if last is not None:
                yield last
            last = piece
    if last is not None:
        yield last


def _follows(first: Span, second: Span) -> bool:
    return first.file == second.file and first.offset + first.length == second.offset


class _Sources:
    """The source files of one copy; one is open at a time, since shards can be thousands."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._fd = -1

    def __enter__(self) -> _Sources:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            os.close(self._fd)
            self._file = None

    def open(self, span: Span) -> int:
        """The file of `span`, which must be long enough."""
        if span.file != self._file:
            self.__exit__()
            self._fd = open_file(span.file)
            self._file = span.file
        if os.fstat(self._fd).st_size < span.offset + span.length:
            raise too_short(span.file)
        return self._fd

    def extents(self, span: Span) -> Iterator[tuple[int, int]]:
        """Start and stop of all data in `span`, holes left out."""
        return reading.extents(self.open(span), span)


class _Writer:
    """Puts pieces at the position of a file descriptor."""

    def __init__(self, fd: int, sources: _Sources, progress: Callable[[int], None]) -> None:
        self._fd = fd
        self._sources = sources
        self._progress = progress
        self._position = 0
        self._pushed = 0
        self._buffer = memoryview(bytearray(BLOCK))
        self._kernel = [self._copy_file_range, self._sendfile]

    def put(self, piece: Piece) -> None:
        if isinstance(piece, Raw):
            if piece.scan or piece.crc is not None:
                self._put_scanned(piece)
            else:
                self._put_plain(piece.span)
        elif isinstance(piece, Stream):
            self._put_stream(piece)
        else:
            data = piece.data if isinstance(piece, Literal) else piece.make()
            if len(data) != piece.length:
                raise ValueError(f"a piece of {piece.length} bytes turned out to have {len(data)}")
            self._write(data)

    def _put_plain(self, span: Span) -> None:
        position = span.offset
        for start, stop in self._sources.extents(span):
            self._skip(start - position)
            self._copy(Span(span.file, start, stop - start))
            position = stop
        self._skip(span.offset + span.length - position)

    def _put_scanned(self, piece: Raw) -> None:
        position, stop = piece.span.offset, piece.span.offset + piece.span.length
        for start, tensor in _in_order(piece.scan):
            span = values.span_of(tensor) if tensor.is_contiguous else None
            if span is None or start < position or start + span.length > stop:
                _check_whole(tensor)  # a view across, or one that overlaps: its own pass
                continue
            self._pass(Span(span.file, position, start - position), None, piece.crc)
            self._pass(span, tensor, piece.crc)
            position = start + span.length
        self._pass(Span(piece.span.file, position, stop - position), None, piece.crc)

    def _pass(self, span: Span, tensor: TensorRef | None, crc: Checksum | None) -> None:
        """Copy a range through the buffer, looking at it."""
        if tensor is None and crc is None:
            return self._put_plain(span)
        for offset in range(span.offset, span.offset + span.length, BLOCK):
            length = min(BLOCK, span.offset + span.length - offset)
            part = Span(span.file, offset, length)
            if not any(self._sources.extents(part)):
                if crc is not None:
                    crc.update(bytes(length))
                self._skip(length)
                continue
            block = self._read(part)
            self._look(block, tensor, crc, _byteorder(tensor))
            self._write(block)

    def _put_stream(self, piece: Stream) -> None:
        length = 0
        for block in values.byte_blocks(piece.tensor, BLOCK):
            length += len(block)
            self._look(block, piece.tensor if piece.scan else None, piece.crc)
            self._write(block)
        if length != piece.length:
            raise ValueError(f"{piece.tensor.label}: {length} bytes instead of {piece.length}")

    def _look(
        self,
        block: bytes | memoryview,
        tensor: TensorRef | None,
        crc: Checksum | None,
        order: str = "little",
    ) -> None:
        if tensor is not None:
            check_finite(tensor, block, order)
        if crc is not None:
            crc.update(block)

    def _copy(self, span: Span) -> None:
        """Copy data by the best way that works, from the kernel's own to plain read and write."""
        offset, stop = span.offset, span.offset + span.length
        fd = self._sources.open(span)
        while offset < stop:
            done = self._copy_in_kernel(fd, offset, min(stop - offset, _KERNEL_BLOCK))
            if not done:
                done = min(stop - offset, BLOCK)
                self._write(self._read(Span(span.file, offset, done)))
            else:
                self._advance(done)
            offset += done

    def _copy_in_kernel(self, fd: int, offset: int, length: int) -> int:
        while self._kernel:
            try:
                if done := self._kernel[0](fd, offset, length):
                    return done
            except OSError as error:
                if error.errno in _DISK_FULL:
                    raise
            # Not possible here, or some error: read and write will tell which side it is.
            del self._kernel[0]
        return 0

    def _copy_file_range(self, fd: int, offset: int, length: int) -> int:
        return SYSTEM.copy_file_range(fd, self._fd, length, offset)

    def _sendfile(self, fd: int, offset: int, length: int) -> int:
        return SYSTEM.sendfile(self._fd, fd, offset, length)

    def _read(self, span: Span) -> memoryview:
        """The bytes of a short range, in the buffer."""
        block = self._buffer[: span.length]
        read_into(self._sources.open(span), span, block)
        return block

    def _write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while view:
            done = SYSTEM.write(self._fd, view)
            self._advance(done)
            view = view[done:]

    def _advance(self, count: int) -> None:
        """Count bytes; let the disk begin with them now and then: less is left for the flush."""
        self._position += count
        if self._position - self._pushed >= _PUSH:
            with suppress(OSError):  # it is only advice
                SYSTEM.push(self._fd, self._pushed, self._position - self._pushed)
            self._pushed = self._position
        self._progress(count)

    def _skip(self, length: int) -> None:
        """Leave a hole."""
        if length:
            SYSTEM.lseek(self._fd, length, os.SEEK_CUR)
            self._advance(length)


def _in_order(tensors: Sequence[TensorRef]) -> list[tuple[int, TensorRef]]:
    """Tensors by where they start in their file."""
    pairs = [(values.span_of(tensor).offset, tensor) for tensor in tensors if tensor.numel]
    return sorted(pairs, key=lambda pair: pair[0])


def _byteorder(tensor: TensorRef | None) -> str:
    if tensor is not None and isinstance(tensor.source, Stored):
        return tensor.source.storage.byteorder
    return "little"


def check_finite(tensor: TensorRef, block: bytes | memoryview, byteorder: str = "little") -> None:
    """A RefusedError (id "nonfinite") if a block of the tensor's bytes holds NaN or infinity."""
    if not values.all_finite(block, tensor.dtype, byteorder):
        raise _nonfinite(tensor)


def _check_whole(tensor: TensorRef) -> None:
    for block in values.byte_blocks(tensor):
        check_finite(tensor, block)


def _nonfinite(tensor: TensorRef) -> RefusedError:
    count = values.count_nonfinite(tensor)
    return RefusedError(
        f"{tensor.label or 'a tensor'}: the first moment has {count} non-finite values "
        f"(NaN or infinity) among {tensor.numel}",
        id="nonfinite",
    )

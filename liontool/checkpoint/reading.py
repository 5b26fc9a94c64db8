"""Bytes of source files: opening, reading in full, and errors that name the file."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from liontool.checkpoint.document import Span
from liontool.checkpoint.system import SYSTEM
from liontool.errors import ReadError, SourceChangedError

BLOCK = 1 << 20


def open_file(file: Path) -> int:
    """A descriptor for reading a regular file."""
    try:
        # Without O_NONBLOCK a named pipe would wait for its writer.
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ReadError(f"{file}: cannot be opened: {error.strerror}") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise ReadError(f"{file}: is not a regular file")
    return fd


@contextmanager
def opened(file: Path) -> Iterator[int]:
    """The descriptor of `open_file`, closed after the body."""
    fd = open_file(file)
    try:
        yield fd
    finally:
        os.close(fd)


def read_into(fd: int, span: Span, block: memoryview) -> None:
    """Fill `block`, as long as `span`, with the bytes of `span`."""
    done = 0
    while done < span.length:
        try:
            count = SYSTEM.preadv(fd, [block[done:]], span.offset + done)
        except OSError as error:
            raise ReadError(f"{span.file}: cannot be read: {error.strerror}") from error
        if not count:
            raise too_short(span.file)
        done += count


def extents(fd: int, span: Span) -> Iterator[tuple[int, int]]:
    """Start and stop of all data in `span` of an open file, holes left out."""
    start, stop = span.offset, span.offset + span.length
    while start < stop:
        try:
            start = SYSTEM.lseek(fd, start, os.SEEK_DATA)
            hole = SYSTEM.lseek(fd, start, os.SEEK_HOLE)
        except OSError as error:
            if error.errno != errno.ENXIO:  # ENXIO: nothing but a hole from here on
                yield start, stop  # a file system that knows no holes
            return
        if start < stop:
            yield start, min(hole, stop)
        start = hole


def too_short(file: Path) -> SourceChangedError:
    """The error for a file that ends before bytes that it had."""
    return SourceChangedError(f"{file}: is shorter than when it was first read; try again later")


def ranges(span: Span, size: int) -> Iterator[memoryview]:
    """A range of a file in pieces of `size` bytes, all in one buffer."""
    buffer = memoryview(bytearray(min(size, span.length)))
    with opened(span.file) as fd:
        for offset in range(0, span.length, size):
            part = Span(span.file, span.offset + offset, min(size, span.length - offset))
            block = buffer[: part.length]
            read_into(fd, part, block)
            yield block

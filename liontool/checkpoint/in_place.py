"""Headers changed in place: a few milliseconds for a file of any size, and no moment without it.

The old header goes to `PATH.undo` and to the disk, then the new one is written over it. What is
found after a crash is the old header, the new one, or parts of both; readers take the old one then.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from liontool.checkpoint import publish, undo_record
from liontool.checkpoint.document import Span
from liontool.checkpoint.system import SYSTEM
from liontool.checkpoint.undo_record import Record
from liontool.errors import EditError, PublishError, SourceChangedError


def is_possible(path: Path) -> bool:
    """Whether only this name would see the change: other hard links must keep what they have."""
    return path.stat().st_nlink == 1


def write_header(
    path: Path,
    old: bytes,
    new: bytes,
    *,
    keep_undo: bool = True,
    before_write: Callable[[], None] | None = None,
) -> None:
    """Write a header over another one of the same length.

    Args:
        path: The file; a symbolic link is followed.
        old: What it begins with.
        new: What it is to begin with.
        keep_undo: Whether the record stays, as the way back.
        before_write: Called before the file is touched; an exception calls everything off.

    Raises:
        SourceChangedError: The file does not begin with `old`.
        PublishError: The system refused; the file is as it was, or reads so by its record.
    """
    if len(old) != len(new):
        raise ValueError("a header in place must be as long as the one before it")
    with _guarded(path), _opened(path, os.O_RDWR) as fd:
        _check(fd, path, old)
        earlier = _earlier(fd, path, old)
        size = os.fstat(fd).st_size
        record = Record(old, new, size, undo_record.sample(fd, path, len(old)))
        try:
            _publish(path, (record, *earlier))
            if before_write is not None:
                before_write()
            _check(fd, path, old)
            _put(fd, new)
        except BaseException:
            _take_back(fd, path, old, earlier)
            raise
        if not keep_undo:
            _forget(path)


def can_undo(path: Path) -> bool:
    """Whether `undo` would find its record, and the file as the edit left it."""
    with _guarded(path), _opened(path, os.O_RDONLY) as fd:
        newest = undo_record.newest(path)
        return newest is not None and _fits(newest, fd, path)


def undo(path: Path) -> int:
    """Write the header back that was there before the last edit in place.

    Returns:
        How many edits more can be taken back.

    Raises:
        EditError: There is no record, or the file was changed by something else.
        PublishError: The system refused; to try again does no harm.
    """
    with _guarded(path), _opened(path, os.O_RDWR) as fd:
        found = undo_record.records(path)
        if not found:
            raise EditError(_no_record(path, found))
        newest = found[0]
        if not _fits(newest, fd, path):
            raise EditError(
                f"{path}: was written to since it was edited, so {undo_record.place(path)} does "
                "not fit it any more; delete that"
            )
        _put(fd, newest.old)
        _publish(path, found[1:])
    return len(found) - 1


def restore(path: Path) -> bool:
    """Write the old header back if the last edit broke off in the middle of it; whether it did."""
    with _guarded(path), _opened(path, os.O_RDWR) as fd:
        record = undo_record.torn(fd, path)
        if record is not None:
            _put(fd, record.old)
        return record is not None


def _fits(record: Record, fd: int, path: Path) -> bool:
    """Whether nothing but the edit of the record was done to the file since."""
    if not record.is_of(fd, path):
        return False
    header = undo_record.read(fd, Span(path, 0, len(record.old)))
    return header in (record.old, record.new) or record.is_torn(header)


def _no_record(path: Path, found: Sequence[Record] | None) -> str:
    place = undo_record.place(path)
    if found is None or undo_record.is_there(path):
        return f"{place}: is damaged, or no record of an edit, so there is no way back by it"
    return f"{path}: there is no {place.name} beside it, so no edit in place can be taken back"


def _earlier(fd: int, path: Path, header: bytes) -> tuple[Record, ...]:
    """The records that lead to the file as it is; others are of no use any more."""
    found = undo_record.records(path)
    if found is None:
        raise PublishError(
            f"{undo_record.place(path)}: is in the way, and is no record of an edit; move it away"
        )
    if found and found[0].old == header:  # that edit was never made, or taken back
        found = found[1:]
    if not found or found[0].new != header or not found[0].is_of(fd, path):
        return ()
    return found[: undo_record.MOST_RECORDS - 1]


def _publish(path: Path, records: Sequence[Record]) -> None:
    """Make these the records of the file, durably."""
    place = undo_record.place(path)
    if not records:
        publish.remove(place)
        return
    data = memoryview(b"".join(record.encoded() for record in records))
    with publish.new_file(place, size=len(data), force=True) as file:
        while data:
            data = data[SYSTEM.write(file.fd, data) :]


def _forget(path: Path) -> None:
    """Remove the records of a file that is done with them."""
    try:
        _publish(path, ())
    except OSError as error:
        place = undo_record.place(path)
        raise PublishError(
            f"{path}: is edited, but {place} stayed behind: {error.strerror}; delete it"
        ) from error


def _put(fd: int, header: bytes) -> None:
    data = memoryview(header)
    while data:
        data = data[SYSTEM.pwrite(fd, data, len(header) - len(data)) :]
    SYSTEM.fsync(fd)


def _take_back(fd: int, path: Path, old: bytes, earlier: Sequence[Record]) -> None:
    """The file and its records as they were; where that fails too, readers go by the record."""
    with suppress(Exception):
        if undo_record.read(fd, Span(path, 0, len(old))) != old:
            _put(fd, old)
        _publish(path, earlier)


def _check(fd: int, path: Path, header: bytes) -> None:
    if undo_record.read(fd, Span(path, 0, len(header))) != header:
        raise SourceChangedError(f"{path}: was written to in the meantime; try again")


@contextmanager
def _opened(path: Path, mode: int) -> Iterator[int]:
    fd = SYSTEM.open(path, mode | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        SYSTEM.close(fd)


@contextmanager
def _guarded(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        text = f"{path}: its header cannot be written: {error.strerror or error}"
        raise PublishError(text) from error

"""Whether a checkpoint holds the bytes that its COMMIT lists, before anything reads a meaning in.

Bytes that are wrong are the checkpoint's fault, and another one is used. What the system refuses to
read (a bad disk, too many open files, no right) is nobody's fault but the system's: an error.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.run_folder.commit import MAX_BYTES, Commit, File
from liontool.checkpoint.run_folder.hashing import new_hash
from liontool.checkpoint.run_folder.layout import (
    COMMIT,
    FACTS,
    is_hidden,
    step_of,
    tensors_name,
    tree_name,
)
from liontool.checkpoint.system import SYSTEM
from liontool.errors import DamagedError, LayoutError, LimitError, ReadError, UnfinishedError

Progress = Callable[[int, int], None]
"""Called with the bytes done, and all of them."""

_NEEDED = (tensors_name(), tree_name(), FACTS)
_BLOCK = 1 << 20
# Without O_NONBLOCK a pipe that took a file's place meanwhile would wait for somebody to write.
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

_KINDS = (
    (stat.S_ISLNK, "a link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISREG, "a file"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def check(folder: Path, *, progress: Progress | None = None) -> Commit:
    """Compare every byte of a checkpoint with its COMMIT. Links are never followed.

    Args:
        folder: The checkpoint.
        progress: Called with the bytes read so far and all of them.

    Raises:
        DamagedError: A file is missing, too many or not as it was committed; the message names it.
        UnfinishedError: There is no COMMIT.
        LayoutError: A newer liontool wrote it.
        ReadError: The system refused to read, or the folder was taken away meanwhile.
    """
    with _opened(folder) as place:
        commit = place.commit()
        done, total = 0, commit.size
        for name, file in commit.files.items():
            for count in place.compared(name, file):
                done += count
                if progress is not None:
                    progress(done, total)
        place.check_bounds(commit)
    return commit


def read_commit(folder: Path) -> Commit:
    """What a checkpoint says of itself, with the names and sizes of its files compared, no bytes.

    Raises:
        DamagedError: COMMIT, a name or a size is wrong.
        UnfinishedError: There is no COMMIT.
        LayoutError: A newer liontool wrote it.
        ReadError: The system refused to read, or the folder was taken away meanwhile.
    """
    with _opened(folder) as place:
        return place.commit()


def noted(folder: Path) -> Commit:
    """What a checkpoint says of itself, nothing compared with it; errors as of `read_commit`."""
    with _opened(folder) as place:
        return place.noted()


@contextmanager
def _opened(folder: Path) -> Iterator[_Place]:
    """An open checkpoint; its faults are its own only while the folder stays where it is."""
    try:
        status = os.lstat(folder)
        if not stat.S_ISDIR(status.st_mode):
            raise DamagedError(f"{folder}: is {_kind(status)}, not a folder")
        fd = SYSTEM.open(folder, _FOLDER)
        try:
            yield _Place(folder, fd)
        except (DamagedError, UnfinishedError):
            _check_still_there(folder, fd)
            raise
        finally:
            SYSTEM.close(fd)
    except FileNotFoundError:
        raise _gone(folder) from None
    except OSError as error:
        raise _unreadable(folder, error) from error


def _check_still_there(folder: Path, fd: int) -> None:
    """A trainer that thins out its checkpoints renames them first: then the path is another's."""
    if not os.path.samestat(os.lstat(folder), os.fstat(fd)):
        raise _gone(folder)


def _gone(folder: Path) -> ReadError:
    return ReadError(f"{folder}: was taken away while it was being read; try again")


def _unreadable(path: Path, error: OSError) -> ReadError:
    return ReadError(
        f"{path}: cannot be read: {error.strerror or error}; "
        "that is no fault of the checkpoint, so no other one is taken in its place"
    )


@dataclass(frozen=True)
class _Place:
    """An open folder; its files are opened through it, wherever it is moved meanwhile."""

    folder: Path
    fd: int

    def commit(self) -> Commit:
        """COMMIT, with the step, the names and the sizes compared."""
        commit = self.noted()
        step = step_of(self.folder.name)
        if step not in (None, commit.step):
            raise self._damaged(f"{COMMIT} is that of step {commit.step:,}; was it renamed?")
        self._check_names(commit)
        for name, file in commit.files.items():
            status = self._regular(name)
            if status.st_size != file.size:
                sizes = f"{status.st_size:,} bytes instead of {file.size:,}"
                raise self._damaged(f"{name} is damaged: it has {sizes}")
        return commit

    def compared(self, name: str, file: File) -> Iterator[int]:
        """The bytes of each block as it was read; an error at the end if any was wrong."""
        made, buffer, at = new_hash(), memoryview(bytearray(min(_BLOCK, file.size + 1))), 0
        with self._file(name) as fd:
            while at <= file.size and (count := SYSTEM.preadv(fd, [buffer], at)):
                made.update(buffer[:count])
                at += count
                yield count
        if at != file.size or made.hexdigest() != file.hash:
            raise self._damaged(f"{name} is damaged: its bytes are not those that were committed")

    def check_bounds(self, commit: Commit) -> None:
        """Refuse JSON that no save writes, whatever COMMIT says: it would fill the memory."""
        for name in commit.files:
            try:
                bounded_json.check_file(self.folder / name)
            except LimitError as error:
                text = str(error).removeprefix(f"{self.folder / name}: ")
                raise self._damaged(f"{name} {text}") from None

    def noted(self) -> Commit:
        """COMMIT alone."""
        data = self._commit_bytes()
        try:
            return Commit.decoded(data)
        except DamagedError as error:
            raise self._damaged(str(error)) from None
        except LayoutError as error:
            raise LayoutError(f"{self.folder}: {error}") from None

    def _commit_bytes(self) -> bytes:
        try:
            with self._file(COMMIT) as fd, os.fdopen(os.dup(fd), "rb") as file:
                return file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            raise UnfinishedError(
                f"{self.folder}: has no {COMMIT}: it was never finished, or the file was deleted"
            ) from None

    def _check_names(self, commit: Commit) -> None:
        """The names in the folder and in COMMIT are the same; stops at the first that is not."""
        unlisted = [name for name in _NEEDED if name not in commit.files]
        if unlisted:
            raise self._damaged(f"{COMMIT} does not list {unlisted[0]}")
        missing = set(commit.files)
        with os.scandir(self.fd) as entries:
            for entry in entries:
                is_listed = entry.name in commit.files or entry.name == COMMIT
                if not is_listed and not is_hidden(entry.name):
                    raise self._damaged(f"has '{entry.name}', which {COMMIT} does not list")
                missing.discard(entry.name)
        if missing:
            raise self._damaged(f"{min(missing)} is missing")

    @contextmanager
    def _file(self, name: str) -> Iterator[int]:
        self._regular(name)  # to open a device can be to use it
        try:
            fd = SYSTEM.open(name, _READ, dir_fd=self.fd)
            try:
                yield fd
            finally:
                SYSTEM.close(fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _unreadable(self.folder / name, error) from error

    def _regular(self, name: str) -> os.stat_result:
        status = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise self._damaged(f"{name} is {_kind(status)}, not a file")
        return status

    def _damaged(self, text: str) -> DamagedError:
        return DamagedError(f"{self.folder}: {text}")


def _kind(status: os.stat_result) -> str:
    kinds = (word for is_kind, word in _KINDS if is_kind(status.st_mode))
    return next(kinds, "a device")

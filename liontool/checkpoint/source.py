"""A file or folder as it was at the first look; whatever is read from it is read through this.

A folder is taken with everything below it. Symbolic links stay links: one that leads to another
file of the folder is fine, one that climbs out of it is refused: a copy would lose its end.

The folder of a run holds several checkpoints; it stands for the newest of them.
"""

from __future__ import annotations

import os
import shlex
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from liontool.checkpoint import formats
from liontool.checkpoint.document import Document
from liontool.checkpoint.run_folder import layout
from liontool.errors import LimitError, ReadError, SourceChangedError, UnsafePathError

if TYPE_CHECKING:
    from liontool.checkpoint.run_folder.choosing import Choice
    from liontool.checkpoint.run_folder.commit import Commit

MAX_ENTRIES = 1_000_000
"""Files, links and folders below a source. Sharded checkpoints have some ten thousand."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Mark:
    """What tells a file that was written to from one that was left alone."""

    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Mark:
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)


class Source:
    """A checkpoint on disk. Made by `open_source`.

    Attributes:
        path: As the caller gave it; for the folder of a run, the checkpoint in it.
        is_folder: Whether it holds several files.
        choice: Which checkpoint of a run was taken and why not the others; None where the caller
            named the checkpoint itself.
    """

    def __init__(self, path: Path, choice: Choice | None = None) -> None:
        self.path = path
        self.choice = choice
        self._marks = _marks(path)
        self.is_folder = path.is_dir()
        self._documents: dict[str, Document] = {}
        self._shards: dict[Path, _Mark] = {}

    def listing(self) -> tuple[str, ...]:
        """The files and links of a folder, sorted, parted by `/`; () for a single file.

        Of a checkpoint of a run, without hidden ones, which do not belong to it.
        """
        if not self.is_folder:
            return ()
        names = (name for name in self._marks if not (self.is_of_run and layout.is_hidden(name)))
        return tuple(sorted(names))

    def names(self) -> tuple[str, ...]:
        """The same, made sure that no link leads out of the folder.

        Raises:
            UnsafePathError: A link does.
        """
        for name in self.listing():
            self._check_link(name)
        return self.listing()

    def empty_folders(self) -> tuple[str, ...]:
        """Folders below the source that have nothing in them, sorted."""
        found = (Path(at) for at, folders, files in os.walk(self.path) if not folders and not files)
        names = (path.relative_to(self.path).as_posix() for path in found)
        return tuple(sorted(name for name in names if name != "."))

    def resolved(self, name: str) -> str:
        """The name of the file of the folder that `name`, which may be a link, leads to."""
        return os.path.relpath(os.path.realpath(self.path / name), os.path.realpath(self.path))

    @cached_property
    def commit(self) -> Commit | None:
        """What a checkpoint of a run says of itself; None for every other source.

        Raises:
            ReadError: Names or sizes of its files are not what it says, or it was never finished.
        """
        if not self.is_of_run:
            return None
        from liontool.checkpoint.run_folder.checking import read_commit

        return read_commit(self.path)

    @property
    def is_of_run(self) -> bool:
        """Whether it is a checkpoint of a run, good or bad."""
        marks = self._marks
        return layout.tree_name() in marks and (layout.COMMIT in marks or layout.FACTS in marks)

    @property
    def home(self) -> Path:
        """What results lie beside and never inside: the folder of the run, where it has one."""
        if self.choice is not None:
            return self.choice.run
        name = os.path.basename(os.path.abspath(self.path))  # "." has no name of its own
        if layout.step_of(name) is None or not self.is_of_run:
            return self.path
        is_named = self.path.name not in ("", "..")
        return (self.path if is_named else self.path.resolve()).parent

    @property
    def name(self) -> str:
        """What to call it in a record: "run.ckpt", "exp1/step-0000001200"."""
        real = self.path.resolve()
        return real.name if self.home == self.path else f"{real.parent.name}/{real.name}"

    def passed_over(self) -> tuple[str, ...]:
        """The newer checkpoints of the run that could not be taken, with the reasons."""
        refused = self.choice.refused if self.choice is not None else ()
        return tuple(f"{one.path.name}: {one.reason}" for one in refused)

    @property
    def size(self) -> int:
        """Bytes of all files together, as they were at the first look."""
        marks = (*self._marks.values(), *self._shards.values())
        return sum(mark.size for mark in marks)

    def modified(self, name: str = "") -> int:
        """When a file was last written to, in nanoseconds."""
        return self._marks[name].mtime_ns

    def document(self, name: str = "") -> Document:
        """One file, read once; "" where the source is the file itself.

        A file that is a part of another one's tree, as the tensors of a run are, is that document.

        Raises:
            ReadError: There is no such file, or it cannot be read.
            UnsafePathError: It is a link that leads out of the folder.
        """
        if name not in self._marks:
            raise ReadError(f"{self.path}: has no file '{name}'")
        self._check_link(name)
        if name not in self._documents:
            path = self.path / name if name else self.path
            self._documents[name] = self._whole(name) or self._opened(path, name)
        return self._documents[name]

    def _whole(self, name: str) -> Document | None:
        """The document that a file is a part of."""
        index = formats.index_of(name)
        if not index or index not in self._marks:
            return None
        whole = self.document(index)
        return whole if name in formats.parts(whole) else None

    def notices(self) -> tuple[str, ...]:
        """What there is to say about the files read so far: that a header was torn."""
        documents = {id(one): one for one in self._documents.values()}
        return tuple(text for one in documents.values() for text in formats.notices(one))

    def _opened(self, path: Path, name: str) -> Document:
        document = formats.open_document(path, name)
        if not self.is_folder:  # a folder has the marks of all its files
            self._shards.update((file, _Mark.of(file.stat())) for file in formats.shards(document))
        return document

    def check_unchanged(self) -> None:
        """Compare size, time and inode of every file with those at the first look.

        The shards of an index are compared with what they were when it was opened.

        Raises:
            SourceChangedError: A file was written to, exchanged, added or removed since.
        """
        try:
            now = _marks(self.path)
        except ReadError as error:
            raise SourceChangedError(f"{error}, though it was there at the first look") from error
        for name in sorted(self._marks.keys() | now.keys()):
            path = self.path / name if name else self.path
            _compare(path, self._marks.get(name), now.get(name))
        for path, mark in self._shards.items():
            _compare(path, mark, _mark_of(path))

    def _check_link(self, name: str) -> None:
        """A link must lead to a place inside the folder, also when the folder has been copied."""
        link = self.path / name
        if not self.is_folder or not link.is_symlink():
            return
        target = os.readlink(link)
        inside = os.path.realpath(self.path)
        spelled = os.path.normpath(os.path.join(os.path.dirname(name), target))
        real = os.path.realpath(link)
        if (
            os.path.isabs(target)
            or spelled.split(os.sep)[0] == os.pardir
            or os.path.commonpath([inside, real]) != inside
        ):
            raise UnsafePathError(
                f"{link}: is a link to '{target}', which leads out of the folder; "
                f"make a copy without links first: cp -rL {shlex.quote(str(self.path))} COPY"
            )


def _compare(path: Path, before: _Mark | None, now: _Mark | None) -> None:
    if before == now:
        return
    change = "appeared" if before is None else "was removed" if now is None else "was changed"
    raise SourceChangedError(
        f"{path}: {change} while it was being read; is the run still writing? "
        "Try again when it is done"
    )


def _mark_of(path: Path) -> _Mark | None:
    try:
        return _Mark.of(path.stat())
    except OSError:
        return None


def open_source(
    path: str | os.PathLike[str], *, deep: bool = False, progress: Progress | None = None
) -> Source:
    """Look at a checkpoint: which files there are, and their marks.

    Args:
        path: A file or folder; the folder of a run stands for the newest checkpoint in it.
        deep: Compare every byte of a run's checkpoint with what was committed, and take the newest
            that is as it was. Without it names and sizes decide.
        progress: Called with the bytes compared so far and all of them.

    Raises:
        ReadError: There is nothing at `path`, something that is neither a file nor a folder, or a
            checkpoint of a run that is damaged.
        ResumeError: It is the folder of a run, and none of its checkpoints is good.
    """
    place = Path(path)
    if _is_run(place):
        return _newest(place, deep, progress)
    source = Source(place)
    if deep and source.is_folder and source.commit is not None:
        from liontool.checkpoint.run_folder.checking import check

        check(place, progress=progress)
    return source


def _is_run(path: Path) -> bool:
    try:
        return path.is_dir() and layout.is_run(path)
    except OSError as error:
        raise ReadError(f"{error.filename or path}: {error.strerror}") from error


def _newest(run: Path, deep: bool, progress: Progress | None) -> Source:
    from liontool.checkpoint.run_folder.choosing import choose, nothing_good

    choice = choose(run, deep=deep, progress=progress)
    if choice.chosen is None:
        raise nothing_good(choice)
    return Source(choice.chosen, choice)


def _marks(path: Path) -> dict[str, _Mark]:
    try:
        status = path.stat()
        if stat.S_ISDIR(status.st_mode):
            return dict(_folder_marks(path))
        if stat.S_ISREG(status.st_mode):
            return {"": _Mark.of(status)}
    except FileNotFoundError:
        raise ReadError(f"{path}: no such file or folder") from None
    except OSError as error:
        raise ReadError(f"{error.filename or path}: {error.strerror}") from error
    raise ReadError(f"{path}: is neither a file nor a folder")


def _folder_marks(folder: Path) -> Iterator[tuple[str, _Mark]]:
    """Relative name and mark of everything below `folder` that is not a folder itself."""
    todo, count = [""], 0
    while todo:
        prefix = todo.pop()
        with os.scandir(folder / prefix) as entries:
            for entry in entries:
                count += 1
                if count > MAX_ENTRIES:
                    raise LimitError(f"{folder}: has more than {MAX_ENTRIES:,} entries")
                name = prefix + entry.name
                if entry.is_dir(follow_symlinks=False):
                    todo.append(name + "/")
                else:
                    yield name, _entry_mark(folder / name)


def _entry_mark(path: Path) -> _Mark:
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISLNK(status.st_mode):
        raise ReadError(f"{path}: is neither a file, a folder nor a link; take it away first")
    return _Mark.of(status)

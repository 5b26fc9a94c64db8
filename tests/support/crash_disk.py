"""A disk that loses power: what of a log of system calls may lie on it afterwards.

A call is durable once the files and folders that it changed were synced after it. Every other one
may be there or not, each for itself: writes sector by sector, lost ones as zeros or as a shorter
file, names in any order. A rename happens whole or not at all, as journaling file systems promise.
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from liontool.checkpoint.system import SYSTEM

SECTOR = 512
ROOT = 0
HARMLESS = {"push", "statvfs", "chmod", "preadv"}


@dataclass(frozen=True)
class Names:
    """Names that change together: (folder, name, what it then names, None for nothing)."""

    changes: tuple[tuple[int, str, int | None], ...]
    reported: int | None

    @property
    def nodes(self) -> set[int]:
        """What must be synced for this to be durable."""
        return {folder for folder, _, _ in self.changes}


@dataclass(frozen=True)
class Write:
    """Bytes that go into a file."""

    node: int
    offset: int
    data: bytes
    reported: int | None

    @property
    def nodes(self) -> set[int]:
        """What must be synced for this to be durable."""
        return {self.node}


@dataclass(frozen=True)
class Sync:
    """Everything done so far to a file or folder becomes durable."""

    node: int
    reported: int | None


Op = Names | Write | Sync


@dataclass
class Log:
    """The calls that changed a folder, in their order.

    Attributes:
        ops: The calls; `reported` of each is what was said to be durable when it began.
        reported: What was said to be durable in the end.
        folders: Which nodes are folders.
    """

    ops: list[Op] = field(default_factory=list)
    reported: int | None = None
    folders: set[int] = field(default_factory=lambda: {ROOT})

    def reported_at(self, length: int) -> int | None:
        """What was said to be durable when the first `length` calls were done."""
        return self.ops[length].reported if length < len(self.ops) else self.reported


class Recorder:
    """Writes down every call through SYSTEM that changes something under a folder.

    Args:
        root: The folder; it must be empty.
        reported: What is said to be durable at this moment.
    """

    def __init__(self, root: Path, reported: Callable[[], int | None]) -> None:
        self.root = Path(os.path.realpath(root))
        self.log = Log()
        self.reported = reported
        self._live: dict[int, dict[str, int]] = {ROOT: {}}
        self._nodes = ROOT
        self._files: dict[int, tuple[int, int]] = {}  # descriptor: node, position
        self._turn = threading.RLock()

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Everything that happens in the body is written down."""
        noting = {name: self._noting(name, call) for name, call in vars(SYSTEM).items()}
        with mock.patch.multiple(SYSTEM, **noting):
            yield
        self.log.reported = self.reported()

    def damage(self, path: Path, offset: int, byte: bytes) -> None:
        """Change a byte in a way that no call tells of, and that is there for good."""
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(byte)
        place = self._place(path)
        assert place is not None
        node = self._live[place[0]][place[1]]
        self.log.ops.append(Write(node, offset, byte, self.reported()))
        self.log.ops.append(Sync(node, self.reported()))

    def _noting(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        note = (lambda *_: None) if name in HARMLESS else getattr(self, f"_note_{name}", None)

        def noting(*args: Any, **kwargs: Any) -> Any:
            if "dir_fd" in kwargs:  # only what reads opens files so
                return call(*args, **kwargs)
            assert note is not None, f"the recorder does not know {name}{args}"
            with self._turn:
                reported = self.reported()
                if name == "rmtree":  # its calls are known before it makes them
                    note(reported, None, *args)
                    return call(*args)
                result = call(*args)
                note(reported, result, *args)
                return result

        return noting

    # --- each call ------------------------------------------------------------------------------

    def _note_open(self, reported: int | None, fd: int, path: Path, flags: int, *_: int) -> None:
        place = self._place(path)
        if place is None:
            if Path(os.path.realpath(path)) == self.root:
                self._files[fd] = ROOT, 0
            return
        folder, name = place
        assert not flags & os.O_TRUNC
        if flags & os.O_CREAT and name not in self._live[folder]:
            self._name(reported, (folder, name, self._new()))
        self._files[fd] = self._live[folder][name], 0

    def _note_close(self, reported: int | None, result: None, fd: int) -> None:
        self._files.pop(fd, None)

    def _note_lseek(self, reported: int | None, result: int, fd: int, *_: int) -> None:
        if fd in self._files:
            self._files[fd] = self._files[fd][0], result

    def _note_write(self, reported: int | None, count: int, fd: int, data: bytes) -> None:
        if fd in self._files:
            node, position = self._files[fd]
            self._files[fd] = node, position + count
            self._write(reported, node, position, data, count)

    def _note_pwrite(
        self, reported: int | None, count: int, fd: int, data: bytes, offset: int
    ) -> None:
        if fd in self._files:
            self._write(reported, self._files[fd][0], offset, data, count)

    def _write(self, reported: int | None, node: int, offset: int, data: bytes, count: int) -> None:
        written = bytes(memoryview(data).cast("B")[:count])
        self.log.ops.append(Write(node, offset, written, reported))

    def _note_fsync(self, reported: int | None, result: None, fd: int) -> None:
        if fd in self._files:
            self.log.ops.append(Sync(self._files[fd][0], reported))

    def _note_mkdir(self, reported: int | None, result: None, path: Path, *_: int) -> None:
        place = self._place(path)
        if place is not None:
            node = self._new()
            self.log.folders.add(node)
            self._live[node] = {}
            self._name(reported, (*place, node))

    def _note_rename(self, reported: int | None, result: None, old: Path, new: Path) -> None:
        here, there = self._place(old), self._place(new)
        assert here is not None
        assert there is not None
        self._name(reported, (*here, None), (*there, self._live[here[0]][here[1]]))

    _note_rename_new = _note_rename

    def _note_unlink(self, reported: int | None, result: None, path: Path) -> None:
        place = self._place(path)
        if place is not None:
            self._name(reported, (*place, None))

    _note_rmdir = _note_unlink

    def _note_rmtree(self, reported: int | None, result: None, path: Path) -> None:
        for folder, folders, files in os.walk(path, topdown=False):
            for name in files + folders:
                self._note_unlink(reported, None, Path(folder, name))
        self._note_unlink(reported, None, path)

    # --- the folder as it is now ----------------------------------------------------------------

    def _new(self) -> int:
        self._nodes += 1
        return self._nodes

    def _name(self, reported: int | None, *changes: tuple[int, str, int | None]) -> None:
        self.log.ops.append(Names(changes, reported))
        _rename(self._live, changes)

    def _place(self, path: Path) -> tuple[int, str] | None:
        """The folder and the name of a path; None for one that is elsewhere."""
        absolute = Path(os.path.realpath(Path(path).parent), Path(path).name)
        if self.root not in absolute.parents:
            return None
        *folders, name = absolute.relative_to(self.root).parts
        node = ROOT
        for folder in folders:
            node = self._live[node][folder]
        return node, name


@dataclass(frozen=True)
class Luck:
    """What of the calls that were not synced is on the disk after all.

    Attributes:
        names: How likely it is for each change of names.
        sectors: How likely it is for each sector that was written.
        zeros: Whether lost sectors at the end leave zeros; the file is shorter otherwise.
    """

    names: float
    sectors: float
    zeros: bool


class Disk:
    """What is there when the power comes back.

    Args:
        log: Everything that was done.
        length: How many of the calls were done when the power went.
        luck: What becomes of those that were not synced.
        chance: Random numbers.
    """

    def __init__(self, log: Log, length: int, luck: Luck, chance: random.Random) -> None:
        self.folders: dict[int, dict[str, int]] = {node: {} for node in log.folders}
        self.files: dict[int, bytearray] = {}
        durable = durable_ops(log.ops[:length])
        for number, op in enumerate(log.ops[:length]):
            if isinstance(op, Names):
                if number in durable or chance.random() < luck.names:
                    _rename(self.folders, op.changes)
            elif isinstance(op, Write):
                share = 1.0 if number in durable else luck.sectors
                _write(self.files.setdefault(op.node, bytearray()), op, share, luck.zeros, chance)

    def put(self, folder: Path, node: int = ROOT) -> None:
        """Make all of it in an empty folder."""
        for name, child in self.folders[node].items():
            if child in self.folders:
                os.mkdir(folder / name)
                self.put(folder / name, child)
            else:
                (folder / name).write_bytes(self.files.get(child, b""))


def durable_ops(ops: list[Op]) -> set[int]:
    """The numbers of the calls that nothing can undo."""
    waiting: dict[int, set[int]] = {}
    durable = set()
    for number, op in enumerate(ops):
        if not isinstance(op, Sync):
            waiting[number] = set(op.nodes)
            continue
        for earlier in list(waiting):
            waiting[earlier].discard(op.node)
            if not waiting[earlier]:
                durable.add(earlier)
                del waiting[earlier]
    return durable


def _rename(
    folders: dict[int, dict[str, int]], changes: tuple[tuple[int, str, int | None], ...]
) -> None:
    for folder, name, node in changes:
        if node is None:
            folders[folder].pop(name, None)
        else:
            folders[folder][name] = node


def _write(content: bytearray, op: Write, share: float, zeros: bool, chance: random.Random) -> None:
    for start in range(0, len(op.data), SECTOR):
        piece = op.data[start : start + SECTOR]
        lost = share < 1.0 and chance.random() >= share
        at = op.offset + start
        if lost and not zeros:
            continue
        if len(content) < at + len(piece):
            content.extend(bytes(at + len(piece) - len(content)))
        if not lost:
            content[at : at + len(piece)] = piece

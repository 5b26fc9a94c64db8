"""A disk without room, or with errors, while a run is saved: the run goes on and saves again."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LiontoolError, NoSpaceError
from liontool.resume.leftovers import delete_leftovers
from support.crash_faults import Struck, room_for
from support.crash_part import Part
from support.crash_saves import leftovers, save, saver, snapshot

CODES = (errno.EIO, errno.EDQUOT, errno.ENOSPC, errno.EROFS, None)
FULL = (errno.ENOSPC, errno.EDQUOT)
PAGE = os.sysconf("SC_PAGE_SIZE")


class Tried:
    """One folder of a run in which saves are made to fail, one after the other.

    Args:
        part: Where to count.
        run: The folder; a first checkpoint is saved in it.
        size: Bytes of weights in each save.
    """

    def __init__(self, part: Part, run: Path, size: int = 64) -> None:
        self.part = part
        self.run = run
        self.size = size
        self.step = 1
        run.mkdir()
        save(run, 1, size)

    def failing(
        self, fault: AbstractContextManager[object], what: str, codes: tuple[int | None, ...]
    ) -> LiontoolError | None:
        """Save with a fault, see that nothing is lost, and save without it.

        Args:
            fault: The context in which the save fails.
            what: The fault in words.
            codes: The errors that may come of it.
        """
        self.part.counts["saves"] += 1
        saving = saver(self.run, self.step)
        with fault:
            saving.start(snapshot(self.step + 1, self.size))
            error = _outcome(saving.wait)
        found = choose(self.run)
        step = None if found.commit is None else found.commit.step
        wanted = [self.step, self.step + 1] if error else [self.step + 1]
        if step not in wanted or found.refused:
            self.part.problem(f"{what}: {error or 'saved'}; then step {step}, {found.refused}")
        if saving.saved_step != (self.step if error else self.step + 1):
            self.part.problem(f"{what}: {error or 'saved'}, but {saving.saved_step} is reported")
        self._judge(error, what, codes)
        self._again(saving, what)
        return error

    def _judge(self, error: LiontoolError | None, what: str, codes: tuple[int | None, ...]) -> None:
        self.part.counts["said that it failed" if error else "saved all the same"] += 1
        if error is None or not set(codes) & set(FULL):
            return
        if isinstance(error, NoSpaceError):
            self.part.counts["named the room that is lacking"] += 1

    def _again(self, saving: object, what: str) -> None:
        """With the fault gone, the same saver saves the next step."""
        self.part.counts["left a hidden name behind"] += bool(leftovers(self.run))
        delete_leftovers(self.run)
        self.step += 2
        saving.start(snapshot(self.step, self.size))  # type: ignore[attr-defined]
        error = _outcome(saving.wait)  # type: ignore[attr-defined]
        found = choose(self.run)
        if error or found.commit is None or found.commit.step != self.step or leftovers(self.run):
            self.part.problem(f"{what}: afterwards nothing could be saved: {error}, {found}")


def _outcome(wait: Callable[[], None]) -> LiontoolError | None:
    try:
        wait()
    except LiontoolError as error:
        return error
    return None


def every_byte(part: Part, run: Path, stride: int = 1) -> None:
    """A disk that is full after 0, 1, 2 ... bytes of a save, until there is room for all."""
    for code in FULL:
        tried, room = Tried(part, run / errno.errorcode[code]), 0
        while True:
            what = f"{errno.errorcode[code]} after {room} bytes"
            error = tried.failing(room_for(room, code), what, (code,))
            part.counts["bytes of a save"] = max(room, part.counts["bytes of a save"])
            if error is None:
                break
            if not isinstance(error, NoSpaceError):
                part.problem(f"{what}: the error does not speak of room: {error}")
            room += stride


def every_call(part: Part, run: Path) -> None:
    """An error of each kind at each call of a save, once and from there on; short writes too."""
    for forever in (False, True):
        for code in CODES:
            name = "half a write" if code is None else errno.errorcode[code]
            tried = Tried(part, run / f"{name} {'on' if forever else 'once'}".replace(" ", "-"))
            at = 0
            while True:
                fault = Struck(at, code, forever)
                tried.failing(fault.striking(), f"{name} at call {at}, {forever=}", (code,))
                if threading.get_ident() in fault.threads:
                    part.problem("a save called the system from the thread that trains")
                if at >= len(fault.names):
                    break
                at += 1
            part.counts["system calls of a save"] = max(at, part.counts["system calls of a save"])


def full_tmpfs(part: Part, mounted: Path, tries: int) -> None:
    """Saves on a file system with so few pages left that none, some or all of a save fits.

    Half of them see it beforehand; for the others the disk fills up behind their back.
    """
    chance = random.Random(part.seed)
    for size in (64, 3 * PAGE):
        tried = Tried(part, mounted / f"run-{size}", size)
        for _ in range(tries // 4):
            free = chance.randrange(0, 160 << 10, PAGE)
            tried.failing(_filled(mounted, free), f"{free} bytes free on tmpfs", (errno.ENOSPC,))
            pages = chance.randrange(10)
            fault = _filled_later(mounted, pages * PAGE)
            tried.failing(fault, f"{pages} pages left on tmpfs at the first write", (errno.ENOSPC,))


@contextmanager
def _filled(mounted: Path, free: int) -> Iterator[None]:
    """Fill a file system until only so many bytes are left."""
    filler = mounted / "filler"
    room = os.statvfs(mounted)
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(room.f_bavail * room.f_frsize - free, 1))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def _filled_later(mounted: Path, free: int) -> Iterator[None]:
    """Fill it when the first file of a save is opened."""
    call, fillings = SYSTEM.open, []

    def filling(path: Path, flags: int, *args: int, **kwargs: int) -> int:
        if flags & os.O_CREAT and not fillings:
            fillings.append(_filled(mounted, free))
            fillings[0].__enter__()
        return call(path, flags, *args, **kwargs)

    try:
        with mock.patch.object(SYSTEM, "open", filling):
            yield
    finally:
        for filled in fillings:
            filled.__exit__(None, None, None)


@contextmanager
def tmpfs(folder: Path, size: str = "512k") -> Iterator[Path]:
    """A file system in memory.

    Args:
        folder: Where to mount it; it is made.
        size: How much it holds.

    Raises:
        PermissionError: Only root may, and not everywhere.
    """
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None:
        raise PermissionError("there is no mount command")
    command = [mount, "-t", "tmpfs", "-o", f"size={size}", "none", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PermissionError(done.stderr.strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)

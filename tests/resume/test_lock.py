"""The lock of a run: one holder, who is named, and who cannot leave it behind."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.lock import Holder, RunLock, holder, locked, make_folder
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LockedError, ReadError, ResumeError
from support.checkpoints import everything

HOLD = (
    "import sys; from pathlib import Path; "
    "from liontool.checkpoint.run_folder.lock import RunLock; "
    "lock = RunLock(); lock.acquire(Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
)


@contextmanager
def another_process(run: Path, code: str = HOLD) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that has the lock in the body."""
    command = [sys.executable, "-c", code, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_taken_and_given_back(tmp_path: Path) -> None:
    """The holder is known while it holds, and the next one can follow."""
    run = tmp_path / "runs" / "exp1"
    for _ in range(2):
        assert holder(run) is None
        with locked(run):
            who = holder(run)
            assert who is not None
            assert (who.pid, who.host) == (os.getpid(), socket.gethostname())
            assert abs((who.started or 0) - time.time()) < 60
    RunLock().release()  # of a lock that is not held: without effect


def test_another_process(tmp_path: Path) -> None:
    """A second one waits as long as it was told, and then names the holder."""
    with another_process(tmp_path) as process:
        message = rf"is in use by process {process.pid} \(python.* on .* since 20.* UTC; wait until"
        for wait in (0.0, 0.3):
            started = time.monotonic()
            with pytest.raises(LockedError, match=message):
                RunLock().acquire(tmp_path, wait=wait)
            assert wait <= time.monotonic() - started < wait + 2
        who = holder(tmp_path)
        assert who is not None
        assert who.pid == process.pid
    with locked(tmp_path, wait=0):  # killed: nothing is left of it
        assert holder(tmp_path) == holder(tmp_path)


def test_waits_for_the_end(tmp_path: Path) -> None:
    """A start gets the lock as soon as the last run has ended."""
    code = HOLD.replace("sys.stdin.read()", "import time; time.sleep(0.5)")
    with another_process(tmp_path, code), locked(tmp_path, wait=15):
        assert holder(tmp_path) is not None


def test_same_process(tmp_path: Path) -> None:
    """A second Run of the same process is told at once."""
    with locked(tmp_path):
        started = time.monotonic()
        with pytest.raises(LockedError, match="this process trains in it already; close\\(\\) tha"):
            RunLock().acquire(tmp_path, wait=15)
        assert time.monotonic() - started < 1
        assert holder(tmp_path) is not None


def test_forked_child(tmp_path: Path) -> None:
    """A child that outlives its parent, as a loader worker may, does not keep the lock."""
    code = f"import os; {HOLD}".replace("print(", "os.fork(); print(")
    with another_process(tmp_path, code) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with locked(tmp_path, wait=1):
            assert holder(tmp_path) is not None


def test_child_cannot_release(tmp_path: Path) -> None:
    """Nor can it give the parent's lock away."""
    lock = RunLock()
    lock.acquire(tmp_path)
    child = os.fork()
    if child == 0:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    assert holder(tmp_path) is not None
    lock.release()
    assert holder(tmp_path) is None


def test_deleted_file(tmp_path: Path) -> None:
    """Whoever deletes the file gives no second holder the old lock."""
    with another_process(tmp_path):
        fd = os.open(tmp_path / "run.lock", os.O_RDWR)
        (tmp_path / "run.lock").unlink()
        with locked(tmp_path, wait=0):
            assert not os.path.samestat(os.fstat(fd), (tmp_path / "run.lock").stat())
        os.close(fd)


def test_deleted_while_it_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between open and lock the file can go: the lock of a file without a name keeps nobody out."""
    path, real, asked = tmp_path / "run.lock", fcntl.flock, list[int]()

    def flock(fd: int, kind: int) -> None:
        if not asked:
            path.unlink()
        asked.append(kind)
        real(fd, kind)

    lock = RunLock()
    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", flock)
        lock.acquire(tmp_path)
    assert (lock.is_at(path), len(asked)) == (True, 2)
    lock.release()


def test_somebody_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look holds a lock of its own for a moment; whoever does not wait asks once more."""
    path = tmp_path / "run.lock"
    path.write_bytes(b"")
    looking = os.open(path, os.O_RDONLY)
    fcntl.flock(looking, fcntl.LOCK_SH)
    monkeypatch.setattr(time, "sleep", lambda _: fcntl.flock(looking, fcntl.LOCK_UN))
    with locked(tmp_path, wait=0):
        assert holder(tmp_path) is not None
    os.close(looking)


def test_longer_note_of_before(tmp_path: Path) -> None:
    """Of what the last holder wrote nothing is left behind the new note."""
    (tmp_path / "run.lock").write_bytes(json.dumps({"pid": 1, "command": "x" * 3000}).encode())
    with locked(tmp_path):
        who = holder(tmp_path)
    assert who is not None
    assert who.pid == os.getpid()


def test_file_that_stays_open(tmp_path: Path) -> None:
    """A child that got the file by another way than a fork does not keep the lock."""
    lock = RunLock()
    lock.acquire(tmp_path)
    assert lock._fd is not None
    kept = os.dup(lock._fd)
    lock.release()
    assert holder(tmp_path) is None
    os.close(kept)


def test_looking_takes_nothing(tmp_path: Path) -> None:
    """Whoever only looks leaves no file, and waits for nobody."""
    assert holder(tmp_path) is None
    assert everything(tmp_path) == {}
    assert holder(tmp_path / "nowhere") is None
    (tmp_path / "run.lock").write_bytes(b"left by a run that is over")
    before = everything(tmp_path)
    assert holder(tmp_path) is None
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "noted",
    [
        b"",
        b"\xff\xfe",
        b"[" * 4000,
        b"[]",
        b"{}",
        json.dumps({"pid": "1", "host": 2, "started": True, "command": []}).encode(),
        json.dumps({"pid": 1, "host": "h", "started": 1e300, "command": ""}).encode(),
        b'{"pid": 1, "host": "h", "started": NaN, "command": ""}',
    ],
)
def test_any_note(tmp_path: Path, noted: bytes) -> None:
    """What stands in the file is only told: anything else is "another process"."""
    with another_process(tmp_path):
        (tmp_path / "run.lock").write_bytes(noted)
        assert holder(tmp_path) == Holder()
        with pytest.raises(LockedError, match=r"is in use by another process; wait until it has"):
            RunLock().acquire(tmp_path, wait=0)


def test_name_is_safe() -> None:
    """A command line that plays tricks on terminals is spelled out."""
    assert str(Holder(7, "h\x1b[2J", 0.0, "python \u202ex")) == (
        r"process 7 (python \u202ex) on h\x1b[2J since 1970-01-01 00:00 UTC"
    )


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_no_file(tmp_path: Path, kind: str) -> None:
    """Whatever else bears the name of the lock is neither followed nor written to."""
    path, target = tmp_path / "run.lock", tmp_path / "precious"
    target.write_bytes(b"precious")
    if kind == "link":
        path.symlink_to(target)
    else:
        (os.mkfifo if kind == "pipe" else os.mkdir)(path)
    for ask in (RunLock().acquire, holder):
        with pytest.raises((ResumeError, ReadError), match=r"run\.lock: is no regular file; take"):
            ask(tmp_path)
    assert target.read_bytes() == b"precious"


def test_no_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system without locks is said to be one."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(ResumeError, match=r"cannot be locked: No locks available; a run needs a "):
        RunLock().acquire(tmp_path)
    (tmp_path / "run.lock").write_bytes(b"")
    with pytest.raises(ReadError, match=r"run\.lock: cannot be read: No locks available"):
        holder(tmp_path)


def test_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the note cannot be written the lock holds all the same."""

    def pwrite(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", pwrite)
    with locked(tmp_path):
        assert holder(tmp_path) == Holder()


def test_no_folder(tmp_path: Path) -> None:
    """Where the folder of the run cannot be made, the message says so."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ResumeError, match=r"file/exp1: cannot be locked: Not a directory; a run n"):
        RunLock().acquire(tmp_path / "file" / "exp1")


def test_folders_are_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each folder that is made is flushed in the one above it, from the top."""
    calls: list[str] = []

    def noting(name: str) -> None:
        real = getattr(SYSTEM, name)

        def call(path: object, *rest: object) -> object:
            calls.append(f"{name} {Path(str(path)).name}" if name != "fsync" else name)
            return real(path, *rest)

        monkeypatch.setattr(SYSTEM, name, call)

    for name in ("mkdir", "open", "fsync"):
        noting(name)
    make_folder(tmp_path / "a" / "b")
    above = tmp_path.name
    assert calls == ["mkdir a", f"open {above}", "fsync", "mkdir b", "open a", "fsync"]
    make_folder(tmp_path / "a" / "b")
    assert len(calls) == 6


def test_two_at_once(tmp_path: Path) -> None:
    """Of many that start in the same moment exactly one gets the lock."""
    code = (
        "import sys, time; from pathlib import Path; from liontool.errors import LockedError; "
        "from liontool.checkpoint.run_folder.lock import RunLock\n"
        "sys.stdin.readline(); lock = RunLock()\n"
        "try: lock.acquire(Path(sys.argv[1]), wait=0.3); print('got', flush=True)\n"
        "except LockedError: print('not', flush=True)\n"
        "sys.stdin.readline()"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.stdout.readline().strip() for process in processes if process.stdout]
    for process in processes:
        process.communicate("end\n")
    assert sorted(answers) == ["got", *["not"] * 5]

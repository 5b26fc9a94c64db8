"""Processes that are forked from one that has torch imported, told to, listened to and killed.

The server has one thread: a fork of more would copy locks that nobody gives back.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import os
import select
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liontool.checkpoint.staging import SUFFIX
from liontool.checkpoint.system import SYSTEM

PATIENCE = 60.0
"""Seconds after which a process is taken to hang."""

SLOW = 0.003
"""Seconds that a call takes which is aimed at."""

_SUBREAPER = 36
Tell = Callable[[str], None]


class Hanging(Exception):
    """A process did nothing for too long."""


class Child:
    """A process of its own group that says what it does, line by line.

    Args:
        work: What it does, given the function that says a line.
        errors: The file that its standard error goes to.

    Attributes:
        pid: Of the process, and of its group.
        lines: What it said so far.
        code: How it ended, as `subprocess` has it; None while it runs.
    """

    def __init__(self, work: Callable[[Tell], None], errors: Path) -> None:
        self.lines: list[str] = []
        self.code: int | None = None
        self._rest = b""
        self._waiting: deque[str] = deque()
        self._errors = errors
        self._pipe, write = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _live(work, write, errors)
        os.close(write)
        os.set_blocking(self._pipe, False)
        with contextlib.suppress(PermissionError, ProcessLookupError):
            os.setpgid(self.pid, self.pid)
        self._handle = os.pidfd_open(self.pid)

    def listen(self, until: Callable[[str], bool] | None = None, seconds: float = PATIENCE) -> bool:
        """Collect lines until one is as wanted; whether it came before the end and the time.

        Args:
            until: Which line is waited for; none to wait for the end.
            seconds: How long.
        """
        deadline = time.monotonic() + seconds
        while True:
            self._waiting += self._new_lines()
            while self._waiting:
                self.lines.append(self._waiting.popleft())
                if until is not None and until(self.lines[-1]):
                    return True
            if self.code is not None:
                return False
            poll = select.poll()
            poll.register(self._pipe, select.POLLIN)
            poll.register(self._handle, select.POLLIN)
            left = deadline - time.monotonic()
            ready = poll.poll(max(left, 0) * 1000) if left > 0 else []
            if not ready:
                return False
            if any(fd == self._handle for fd, _ in ready):
                self._reap()

    def end(self) -> int:
        """Wait for the end.

        Raises:
            Hanging: It did not come.
        """
        self.listen()
        if self.code is None:
            self.kill()
            raise Hanging(f"hangs; it last said {self.lines[-5:]}")
        return self.code

    def kill(self, *, group: bool = True) -> None:
        """Kill it, with or without the processes it started, and wait for its end."""
        self.send(signal.SIGKILL, group=group)
        if self.code is None:
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            self._reap()
        self.lines += [*self._waiting, *self._new_lines()]
        self._waiting.clear()

    def send(self, number: int, *, group: bool = False) -> None:
        """Send a signal; it may be gone already."""
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(self.pid, number)

    def close(self) -> None:
        """Give back what the server holds of it."""
        os.close(self._pipe)
        os.close(self._handle)

    def complaints(self) -> str:
        """What it wrote to standard error."""
        return self._errors.read_text(errors="replace")[-3000:]

    def _reap(self) -> None:
        if self.code is None:
            _, status = os.waitpid(self.pid, 0)
            self.code = os.waitstatus_to_exitcode(status)

    def _new_lines(self) -> list[str]:
        chunks = [self._rest]
        with contextlib.suppress(BlockingIOError):
            while chunk := os.read(self._pipe, 1 << 16):
                chunks.append(chunk)
        *lines, self._rest = b"".join(chunks).split(b"\n")
        return [line.decode() for line in lines]


def adopt_orphans() -> None:
    """Let processes whose parent was killed become children of this one."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)


def outlived(pids: list[int], seconds: float = 15.0) -> list[int]:
    """Those of the process groups that have members after some seconds; they are killed."""
    deadline = time.monotonic() + seconds
    while (left := [pid for pid in pids if _is_alive(pid)]) and time.monotonic() < deadline:
        time.sleep(0.05)
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    return left


def _is_alive(group: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-group, os.WNOHANG)[0]:
            pass
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def check_single() -> None:
    """See that a fork copies nothing but this thread.

    Raises:
        AssertionError: There is another one.
    """
    count = len(os.listdir("/proc/self/task"))
    assert count == 1 == threading.active_count(), f"{count} threads in the fork server"


@dataclass(frozen=True)
class Aim:
    """A call in the middle of a save, which takes so long that the server can strike.

    Attributes:
        save: The how manyth save since the start, from 1.
        call: The how manyth call of it, from 0.
    """

    save: int
    call: int


def tell_calls(tell: Tell, aim: Aim | None = None) -> None:
    """Say the name of each call through SYSTEM before it is made, and "aimed" at one of them."""
    saves, calls = 0, 0

    def telling(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def told(*args: Any, **kwargs: Any) -> Any:
            nonlocal saves, calls
            tell(f"call {name}")
            is_first = name == "mkdir" and str(args[0]).endswith(SUFFIX)
            saves, calls = saves + is_first, 0 if is_first else calls + 1
            if aim == Aim(saves, calls):
                tell("aimed")
                time.sleep(SLOW)
            return call(*args, **kwargs)

        return told

    for name, call in list(vars(SYSTEM).items()):
        setattr(SYSTEM, name, telling(name, call))


def _live(work: Callable[[Tell], None], pipe: int, errors: Path) -> None:
    """The whole life of a forked process."""
    code = 1
    try:
        os.setpgid(0, 0)
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        fd = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
        os.dup2(fd, 2)
        os.dup2(fd, 1)
        try:
            work(lambda line: _say(pipe, line))
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        threading._shutdown()  # as the interpreter ends: other threads, then these
        atexit._run_exitfuncs()
    except BaseException:
        with contextlib.suppress(BaseException):
            traceback.print_exc()
            sys.stderr.flush()
        code = 1
    finally:
        os._exit(code)


def _say(pipe: int, line: str) -> None:
    os.write(pipe, line.replace("\n", " ").encode() + b"\n")

"""The command line run on files that nobody should trust, and watched while it runs."""

from __future__ import annotations

import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import typer

from liontool.cli import application, failures, main
from liontool.errors import LiontoolError
from support.hostile_trees import TRAP

PATIENCE = 20
"""Seconds after which a run counts as hanging. Honest ones take hundredths."""


class TooSlowError(BaseException):
    """Not an Exception: the command line must not turn it into a message."""


@dataclass
class Run:
    """What one run of the command did."""

    code: int = -1
    out: str = ""
    err: str = ""
    error: BaseException | None = None
    events: list[str] = field(default_factory=list)


# Python's audit events that no reading of a file may cause. `open` and `import` are looked at
# more closely.
_FORBIDDEN = (
    "os.system", "os.exec", "os.fork", "os.spawn", "os.posix_spawn", "os.startfile", "os.putenv",
    "os.kill", "os.chown", "subprocess.", "socket.", "pty.", "shutil.",
    "urllib.", "http.", "ftplib.", "smtplib.", "webbrowser.", "pickle.", "marshal.loads",
    "code.__new__", "compile", "exec", "builtins.input", "sqlite3.",
)  # fmt: skip


class Watch:
    """Sees everything that Python does while it is on. Audit hooks cannot be taken away again."""

    def __init__(self) -> None:
        self._folder = ""
        self._seen: list[str] | None = None
        self._thread = 0
        self._importing = 0
        sys.addaudithook(self._look)

    @contextmanager
    def on(self, folder: Path) -> Iterator[list[str]]:
        seen: list[str] = []
        self._folder, self._thread = os.path.realpath(folder), threading.get_ident()
        self._seen = seen
        try:
            yield seen
        finally:
            self._seen = None

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._seen is None or threading.get_ident() != self._thread:
            return
        if event == "import":
            if not _is_ours(str(arguments[0])):
                self._seen.append(f"import {arguments[0]}")
        elif event == "open":
            if not self._may_open(arguments[0], arguments[2]):
                self._seen.append(f"open {arguments[0]!r}")
        elif (
            event.startswith(_FORBIDDEN) and sys._getframe(1).f_globals["__name__"] not in _TRUSTED
        ):
            self._seen.append(f"{event} {arguments!r:.200}")

    def _may_open(self, path: Any, flags: Any) -> bool:
        if not isinstance(path, (str, bytes)):
            return True
        path = os.path.abspath(os.fsdecode(path))
        if path.startswith(self._folder):
            return True
        writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        return path.endswith((".py", ".pyc")) and not writes


# They run code of modules on their way in, and evaluate the annotations of commands.
_TRUSTED = (
    "importlib._bootstrap", "importlib._bootstrap_external", "inspect", "typing", "dataclasses",
    "collections",
)  # fmt: skip
_OURS = ("liontool", "rich", "numpy", "encodings", "stringprep")


def _is_ours(module: str) -> bool:
    return module.split(".")[0] in _OURS or module in sys.modules


class Runner:
    """Runs the command line in this process."""

    def __init__(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        self._watch = Watch()
        self._failed: BaseException | None = None
        self._report = failures.report
        self.marker = folder / "marker"
        self._set_trap(patch, folder / "modules")
        patch.setattr(failures, "report", self._noted)
        command = typer.main.get_command(
            application()
        )  # put together once: that takes longest of all
        patch.setattr(typer.main, "get_command", lambda _: command)
        patch.setenv("COLUMNS", "100")
        patch.delenv("LIONTOOL_DEBUG", raising=False)

    def _set_trap(self, patch: pytest.MonkeyPatch, folder: Path) -> None:
        folder.mkdir(parents=True)
        mark = f"open({str(self.marker)!r}, 'w').close()"
        code = f"{mark}\ndef spring(*_, **__):\n    {mark}\nTrap = spring\n"
        (folder / f"{TRAP}.py").write_text(code)
        patch.syspath_prepend(folder)

    def _noted(self, error: BaseException, arguments: Any = ()) -> int:
        self._failed = error
        return self._report(error, arguments)

    def run(self, folder: Path, *arguments: str) -> Run:
        """The command in `folder`, which is the only one that it may touch."""
        run = Run()
        self._failed = None
        streams = [io.TextIOWrapper(io.BytesIO(), "utf-8") for _ in range(2)]
        before = os.getcwd()
        os.chdir(folder)
        try:
            with (
                redirect_stdout(streams[0]),
                redirect_stderr(streams[1]),
                _alarm(),
                self._watch.on(folder) as run.events,
            ):
                run.code = main(arguments)
        finally:
            os.chdir(before)
        run.error = self._failed
        run.out, run.err = (_text(stream) for stream in streams)
        return run


def _text(stream: io.TextIOWrapper) -> str:
    stream.flush()
    return stream.buffer.getvalue().decode()


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(*_: Any) -> None:
        raise TooSlowError

    previous = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


def complaint(run: Run, answers: tuple[int, ...] = (0,)) -> str:
    """What is wrong with how a run ended; "" where nothing is.

    Args:
        run: The run.
        answers: Exit codes besides 2 that it may end with.
    """
    if run.events:
        return f"did what no reading does: {run.events[:5]}"
    if run.code not in (*answers, 2):
        return f"exit code {run.code}"
    if "Traceback" in run.err or "this is a bug" in run.err:
        return f"a bug: {run.err}"
    if any(not c.isprintable() and c != "\n" for c in run.err + run.out):
        return "control characters in the output"
    if run.code in answers:
        warned = all(line.startswith("liontool: warning: ") for line in run.err.splitlines())
        return "" if warned else f"more than warnings: {run.err!r}"
    if not isinstance(run.error, LiontoolError):
        return f"an error not raised on purpose: {run.error!r}"
    line = run.err.removesuffix("\n")
    if not line.startswith("liontool: error: ") or "\n" in line:
        return f"not one line: {line!r}"
    return ""


def contents(folder: Path) -> dict[str, Any]:
    """Everything in a folder, and what tells whether it was changed. Follows no link."""
    found: dict[str, Any] = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(root, name)
            status = os.lstat(path)
            found[os.path.relpath(path, folder)] = (
                status.st_mode, status.st_ino, status.st_size, status.st_mtime_ns,
            )  # fmt: skip
    return found

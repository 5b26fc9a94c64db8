"""Runs of the command line with their cost: each in a process of its own that needs no start.

A server has the command line imported, and no torch; it forks for every run.
"""

from __future__ import annotations

import importlib
import json
import os
import pkgutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import liontool

ROOT = Path(liontool.__file__).parent


@dataclass(frozen=True)
class Outcome:
    """What one run of the command did.

    Attributes:
        code: Its exit code; negative for a signal.
        out: What it printed.
        err: What it complained of.
        seconds: Of the processor: other tests run at the same time.
        memory: Bytes it had at most, those of Python and of the command line included.
    """

    code: int
    out: str
    err: str
    seconds: float
    memory: int


class Refusals:
    """The server; `with Refusals() as refusals` ends it."""

    def __enter__(self) -> Refusals:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def run(self, *arguments: str | Path) -> Outcome:
        """One run of `liontool`."""
        sent, received = self._process.stdin, self._process.stdout
        assert sent is not None
        assert received is not None
        sent.write(json.dumps([str(word) for word in arguments]) + "\n")
        sent.flush()
        return Outcome(**json.loads(received.readline()))


def _serve() -> None:
    for package in ("checkpoint", "cli", "convert", "inspect"):
        for module in pkgutil.walk_packages([str(ROOT / package)], f"liontool.{package}."):
            importlib.import_module(module.name)
    for line in sys.stdin:
        print(json.dumps(vars(_outcome(json.loads(line)))), flush=True)


def _outcome(arguments: list[str]) -> Outcome:
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        child = os.fork()
        if child == 0:
            _run(arguments, out, err)
        _, status, usage = os.wait4(child, 0)
        out.seek(0)
        err.seek(0)
        code = os.waitstatus_to_exitcode(status)
        seconds = usage.ru_utime + usage.ru_stime
        return Outcome(code, out.read(), err.read(), seconds, usage.ru_maxrss * 1024)


def _run(arguments: list[str], out: IO[str], err: IO[str]) -> None:
    from liontool.cli import main

    sys.stdin = open(os.devnull)  # noqa: SIM115
    os.dup2(out.fileno(), 1)
    os.dup2(err.fileno(), 2)
    code = 99
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 98
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    _serve()

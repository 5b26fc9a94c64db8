"""How every way to fail looks to the user: one line on stderr, and the exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import typer

from liontool.cli.signals import Stopped
from liontool.errors import LiontoolError
from liontool.escape import safe

COULD_NOT = 2
INTERRUPTED = 130
SIGNALLED = 128
PIPE_CLOSED = 141

# The base classes have no public name in every version of typer.
_UsageError = typer.BadParameter.__mro__[1]
_ClickException = typer.BadParameter.__mro__[2]


def report(error: BaseException, arguments: Sequence[str] = ()) -> int:
    """Tell the user about `error` and return the exit code.

    With `--json` among the arguments the error is also a JSON document on stdout. LIONTOOL_DEBUG=1
    shows the traceback first.
    """
    if os.environ.get("LIONTOOL_DEBUG") == "1":
        import traceback

        traceback.print_exception(error)
    if isinstance(error, BrokenPipeError):
        return _pipe_closed()
    if isinstance(error, Stopped):
        print(f"liontool: stopped by {error}", file=sys.stderr)
        return SIGNALLED + error.number
    if isinstance(error, KeyboardInterrupt):
        print("liontool: interrupted", file=sys.stderr)
        return INTERRUPTED
    message = safe(describe(error))
    print(f"liontool: error: {message}", file=sys.stderr)
    if _wants_json(arguments):
        from liontool.cli.json_output import write

        fault = {"type": _kind(error), "message": message, "id": getattr(error, "id", None)}
        write({"schema": 1, "error": fault})
    return COULD_NOT


def describe(error: BaseException) -> str:
    """What went wrong, for the user; may still hold unsafe characters."""
    if isinstance(error, LiontoolError):
        return str(error)
    if isinstance(error, _ClickException):
        return _usage(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return f"{where}{error.strerror}"
    if isinstance(error, MemoryError):
        return "the machine has too little memory for this"
    if isinstance(error, ValueError):
        return str(error)
    return (
        f"this is a bug in liontool ({type(error).__name__}: {error}); please report it with what "
        "the same command prints under LIONTOOL_DEBUG=1"
    )


def _usage(error: BaseException) -> str:
    message = str(getattr(error, "format_message", error.__str__)()).strip().rstrip(".")
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if context else message


def _kind(error: BaseException) -> str:
    return "UsageError" if isinstance(error, _UsageError) else type(error).__name__


def _wants_json(arguments: Sequence[str]) -> bool:
    return "--json" in list(arguments)


def _pipe_closed() -> int:
    # `liontool inspect x | head`: nobody reads on. Python would complain again when it flushes.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return PIPE_CLOSED

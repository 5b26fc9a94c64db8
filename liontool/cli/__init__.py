"""The command line: typed options, one library call, one rendering; a file for each command.

Commands import what they need in their bodies, so that `--help` and `inspect` start fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import Annotated

import typer

from liontool.cli import failures
from liontool.cli.commands import PlainCommand, PlainGroup
from liontool.cli.convert import convert
from liontool.cli.demo import demo
from liontool.cli.diff import diff
from liontool.cli.edit import edit
from liontool.cli.inspect import inspect
from liontool.cli.signals import stoppable
from liontool.cli.verify import verify

app = typer.Typer(
    name="liontool",
    cls=PlainGroup,
    add_completion=False,
    rich_markup_mode=None,  # help in boxes needs a Markdown parser, at 60 ms
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Move a training run from AdamW to Lion, and look into checkpoints.",
    epilog="Exit codes: 0 fine, 1 the answer is no, 2 could not be done.",
)
for _command in (convert, inspect, diff, verify, edit, demo):
    app.command(cls=PlainCommand)(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; no exception leaves but SystemExit.

    Args:
        arguments: Words after the program's name; None for those of this process.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with stoppable():
            return _run(arguments)
    except (Exception, KeyboardInterrupt) as error:
        return failures.report(error, arguments)
    except SystemExit as stop:
        # When nobody reads on Rich ends the process by itself, with a code that means "no" here.
        if isinstance(stop.__context__, BrokenPipeError):
            return failures.report(stop.__context__, arguments)
        raise


def _run(arguments: list[str]) -> int:
    # Not `app()`: that prints errors in its own boxes and calls every EOFError an abort.
    command = typer.main.get_command(app)
    try:
        with command.make_context("liontool", arguments) as context:
            code = command.invoke(context) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    if sys.stdout is not None:  # it is None where the shell closed it
        sys.stdout.flush()
    return int(code)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from liontool import __version__

        typer.echo(f"liontool {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())

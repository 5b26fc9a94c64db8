"""The command line: typed options, one library call, one rendering; a file for each command.

Commands import what they need in their bodies, so that `--help` and `inspect` start fast.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from typing import Annotated

import typer

from liontool.cli import failures
from liontool.cli.commands import PlainCommand, PlainGroup
from liontool.cli.signals import stoppable

COMMANDS = ("convert", "inspect", "diff", "verify", "edit", "resume", "demo", "runs")
"""In the order that `--help` lists them; each is a function or a group in a module of its name."""


def application(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The program with some of its commands: to make one takes a third of the time of all."""
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
    app.callback(invoke_without_command=True)(_root)
    for name in names:
        made = getattr(import_module(f"liontool.cli.{name}"), name)
        if isinstance(made, typer.Typer):
            app.add_typer(made, name=name)
        else:
            app.command(cls=PlainCommand)(made)
    return app


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
    names = arguments[:1] if arguments[:1] and arguments[0] in COMMANDS else COMMANDS
    # Not `app()`: that prints errors in its own boxes and calls every EOFError an abort.
    command = typer.main.get_command(application(names))
    try:
        with command.make_context("liontool", arguments) as context:
            code = command.invoke(context) or 0
    except typer.Exit as stop:
        code = stop.exit_code
    if sys.stdout is not None:  # it is None where the shell closed it
        sys.stdout.flush()
    return int(code)


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

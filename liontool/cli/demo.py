"""`liontool demo`: the main job on a small GPT, start to end, in a good minute."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer


def demo(
    out: Annotated[
        str,
        typer.Option(metavar="FOLDER", help="Where checkpoints and the picture go."),
    ] = "liontool-demo",
) -> None:
    """Switch a small GPT from AdamW to Lion, kill it in a save, and compare the losses."""
    from liontool import demo as library
    from liontool.cli import demo_view

    result = library.run(Path(out), say=_say, command=_command)
    demo_view.show(result)


def _say(line: str) -> None:
    from liontool.escape import safe

    typer.echo(f"\n{safe(line)}")


def _command(arguments: Sequence[str]) -> None:
    """Run the real command, as the user would, and stop if it fails."""
    from liontool.cli import main

    _say(f"$ liontool {shlex.join(arguments)}")
    code = main(arguments)
    if code:
        raise typer.Exit(code)

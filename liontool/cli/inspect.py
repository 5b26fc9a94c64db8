"""`liontool inspect`: what a checkpoint is and what is in it, from headers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def inspect(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", show_default=False, help=options.PATH_HELP),
    ],
    framework: options.Framework = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a checkpoint holds: optimizer, schedule, tensors.

    Nothing in the file is executed, and only its headers are read.
    """
    from liontool.inspect.summary import summarise

    summary = summarise(Path(path), framework)
    if as_json:
        from liontool.cli import json_output

        json_output.write(summary.to_dict())
    else:
        from liontool.cli import summary_view

        summary_view.show(summary)

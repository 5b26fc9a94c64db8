"""`liontool resume`: what a start in a run's folder would find."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def resume(
    run: Annotated[
        str,
        typer.Argument(metavar="RUN_DIR", show_default=False, help=options.RUN_HELP),
    ],
    as_json: options.AsJson = False,
) -> None:
    """Say which checkpoint a start would use, and why not the others.

    Every byte of it is compared with its COMMIT. Nothing is moved or locked. The exit code is 1
    where there is no good checkpoint.

    Example: liontool resume runs/exp1
    """
    from liontool.cli import progress
    from liontool.resume.outlook import RESUME, outlook

    with progress.copying() as advance:
        found = outlook(Path(run), progress=advance)
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        from liontool.cli import resume_view

        resume_view.show(found)
    if found.answer != RESUME:
        raise typer.Exit(1)

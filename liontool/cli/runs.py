"""`liontool runs`: what is done to a run's folder by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options
from liontool.cli.commands import PlainCommand, PlainGroup

RunDir = Annotated[
    str,
    typer.Argument(metavar="RUN_DIR", show_default=False, help=options.RUN_HELP),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Only say what would be done; takes no lock.")
]

runs = typer.Typer(
    cls=PlainGroup,
    rich_markup_mode=None,
    help="Thin out or repair the folder of a run in which nobody trains.",
)
"""A group of commands."""


@runs.callback(invoke_without_command=True)
def _alone(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@runs.command(cls=PlainCommand)
def prune(
    run: RunDir,
    last: Annotated[
        str, typer.Option(metavar="N", help="Keep the newest N; at least 2 always stay.")
    ] = "3",
    every: Annotated[
        str | None,
        typer.Option(metavar="N", show_default=False, help="Keep those at multiples of N steps."),
    ] = None,
    best: Annotated[
        str | None,
        typer.Option(metavar="N", show_default=False, help="Keep the N with the lowest metric."),
    ] = None,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
) -> None:
    """Remove old checkpoints; one stays if any of the three options wants it.

    All bytes are compared first: damaged checkpoints are neither counted nor removed. Refused while
    a run has the folder.

    Example: liontool runs prune runs/exp1 --last 3 --every 5000
    """
    from liontool.cli import progress
    from liontool.resume.pruning import thin_out
    from liontool.resume.retention import Keep

    keep = Keep(
        last=options.count("--last", last),
        every=None if every is None else options.count("--every", every),
        best=None if best is None else options.count("--best", best),
    )
    with progress.copying() as advance:
        done = thin_out(Path(run), keep, dry_run=dry_run, progress=advance)
    if as_json:
        from liontool.cli import json_output

        json_output.write(done.to_dict())
    else:
        from liontool.cli import runs_view

        runs_view.show_thinned(done)
    if done.failures:
        raise typer.Exit(1)


@runs.command(cls=PlainCommand)
def repair(run: RunDir, dry_run: DryRun = False, as_json: options.AsJson = False) -> None:
    """Move damaged checkpoints into quarantine/ and delete what killed saves left.

    All bytes of all checkpoints are compared. Where none is good nothing is touched, and the exit
    code is 1. Refused while a run has the folder.

    Example: liontool runs repair runs/exp1 --dry-run
    """
    from liontool.cli import progress
    from liontool.resume.repair import repair as repair_run

    with progress.copying() as advance:
        done = repair_run(Path(run), dry_run=dry_run, progress=advance)
    if as_json:
        from liontool.cli import json_output

        json_output.write(done.to_dict())
    else:
        from liontool.cli import runs_view

        runs_view.show_repaired(done)
    if done.hopeless:
        raise typer.Exit(1)

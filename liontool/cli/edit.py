"""`liontool edit`: change what a checkpoint says, in words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from liontool.cli import options

if TYPE_CHECKING:
    from liontool.edit import EditReport, UndoReport


def edit(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", show_default=False, help=options.PATH_HELP),
    ],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="EDIT...",
            show_default=False,
            help="Such as lr=x0.5 or drop:GLOB; applied from left to right, all or none.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="Where to write; beside PATH if not given.",
        ),
    ] = None,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Change PATH itself; the old one stays as PATH.orig."),
    ] = False,
    no_backup: Annotated[
        bool,
        typer.Option("--no-backup", help="With --in-place, keep neither PATH.orig nor PATH.undo."),
    ] = False,
    undo: Annotated[
        bool,
        typer.Option("--undo", help="Take the last edit of a header in place back."),
    ] = False,
    framework: options.Framework = None,
    optimizer: options.Optimizers = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Change hyperparameters, state, names and metadata of a checkpoint.

    Without --in-place PATH is not touched. All edits are made, or none.

    Example: liontool edit run.ckpt lr=x0.5 rename:module.= --dry-run
    """
    from liontool.checkpoint.collector import paused_collector
    from liontool.cli import progress
    from liontool.edit import edit_checkpoint
    from liontool.edit import undo as take_back

    if undo:
        if words or output or in_place or dry_run:
            raise ValueError("--undo stands alone: it takes the last edit of PATH back")
        _show(take_back(Path(path)), as_json)
        return
    if no_backup and not in_place:
        raise ValueError("--no-backup belongs to --in-place; without that PATH stays as it is")
    with progress.copying() as advance, paused_collector():
        report = edit_checkpoint(
            Path(path),
            tuple(words or ()),
            output=Path(output) if output else None,
            in_place=in_place,
            backup=not no_backup,
            dry_run=dry_run,
            force=force,
            framework=framework,
            optimizers=tuple(optimizer or ()),
            progress=advance,
        )
    _show(report, as_json)


def _show(report: EditReport | UndoReport, as_json: bool) -> None:
    if as_json:
        from liontool.cli import json_output

        json_output.write(report.to_dict())
    else:
        from liontool.cli import edit_view

        edit_view.show(report)

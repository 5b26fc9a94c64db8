"""`liontool verify`: everything that is wrong with a checkpoint, in one run."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def verify(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", show_default=False, help=options.PATH_HELP),
    ],
    against: Annotated[
        str | None,
        typer.Option(
            metavar="OTHER",
            show_default=False,
            help="Compare with another checkpoint; of a conversion's source, prove it.",
        ),
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="List what the pickles name, and what loading runs.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Let warnings count as errors.")] = False,
    no_values: Annotated[
        bool, typer.Option("--no-values", help="Read headers only: no values, no checksums.")
    ] = False,
    framework: options.Framework = None,
    optimizer: options.Optimizers = None,
    as_json: options.AsJson = False,
) -> None:
    """Look for everything that is wrong with a checkpoint.

    Structure, consistency, values. Nothing in the file is executed. The exit code is 1 where there
    are errors.

    Example: liontool verify adamw.lion.ckpt --against adamw.ckpt
    """
    from liontool.cli import progress
    from liontool.inspect.verify import verify as verify_checkpoint

    with progress.copying() as advance:
        found = verify_checkpoint(
            Path(path),
            against=Path(against) if against else None,
            code=code,
            values=not no_values,
            framework=framework,
            optimizers=tuple(optimizer or ()),
            progress=advance,
        )
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        from liontool.cli import verify_view

        verify_view.show(found, strict=strict)
    if not found.passed(strict=strict):
        raise typer.Exit(1)

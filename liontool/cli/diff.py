"""`liontool diff`: what differs between two checkpoints, hyperparameters first."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def diff(
    a: Annotated[str, typer.Argument(metavar="A", show_default=False, help=options.PATH_HELP)],
    b: Annotated[
        str,
        typer.Argument(
            metavar="B", show_default=False, help="Another, of whatever container and framework."
        ),
    ],
    stat: Annotated[
        bool, typer.Option("--stat", help="One line for each kind of tensor, not for each tensor.")
    ] = False,
    atol: Annotated[
        str,
        typer.Option(
            metavar="X", help="Elements are the same if |a - b| <= atol + rtol * |b|; also --rtol."
        ),
    ] = "0",
    rtol: Annotated[str, typer.Option(metavar="X", help="See --atol.")] = "0",
    renames: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="OLD=NEW",
            show_default=False,
            help="What is called OLD in A is NEW in B: names, first parts of names, or patterns "
            "with *; may be repeated.",
        ),
    ] = None,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="GLOB",
            show_default=False,
            help="Compare the tensors with such names alone; may be repeated.",
        ),
    ] = None,
    no_values: Annotated[
        bool, typer.Option("--no-values", help="Compare headers alone, read no values.")
    ] = False,
    most: Annotated[
        str,
        typer.Option("--max", metavar="N", help="Tensors to list, the worst first."),
    ] = "20",
    quiet: Annotated[
        bool,
        typer.Option("-q", "--quiet", help="Print nothing; stop at the first difference."),
    ] = False,
    framework: Annotated[
        str | None,
        typer.Option(
            metavar="NAME[,NAME]",
            show_default=False,
            help="Of both, or of A and of B; found out if not given.",
        ),
    ] = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare two checkpoints: hyperparameters, schedulers, tensors and their values.

    Exit code 0: the same; 1: different; 2: could not be compared.

    Example: liontool diff adamw.ckpt adamw.lion.ckpt
    """
    tolerances = _amount("--atol", atol), _amount("--rtol", rtol)
    rows = options.count("--max", most)
    from liontool.cli import progress
    from liontool.inspect.diff import diff as compare

    with progress.copying() as advance:
        found = compare(
            Path(a),
            Path(b),
            framework=_frameworks(framework),
            atol=tolerances[0],
            rtol=tolerances[1],
            renames=tuple(renames or ()),
            filters=tuple(filters or ()),
            values=not no_values,
            first_only=quiet,
            progress=advance,
        )
    if as_json and not quiet:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    elif not quiet:
        from liontool.cli import diff_view

        diff_view.show(found, stat=stat, most=rows)
    if not found.same:
        raise typer.Exit(1)


def _amount(flag: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{flag} must be a number such as 1e-6, got '{text}'") from None


def _frameworks(text: str | None) -> tuple[str | None, str | None]:
    """One name for both sides, or one for each; nothing before or after the comma finds it out."""
    if text is None:
        return None, None
    names = [name or None for name in text.split(",")]
    if len(names) > 2:
        raise ValueError(f"--framework must be one name, or two with a comma; got '{text}'")
    return names[0], names[-1]

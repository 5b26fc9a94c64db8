"""`liontool inspect`: what a checkpoint is and what is in it, from headers alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def inspect(
    path: Annotated[
        str,
        typer.Argument(metavar="PATH", show_default=False, help=options.PATH_HELP),
    ],
    tensors: Annotated[
        bool, typer.Option("--tensors", help="List the tensors; with --stats, each by itself.")
    ] = False,
    tree: Annotated[
        bool,
        typer.Option("--tree", help="List them as a tree, h.{0-11}.attn for those of a kind."),
    ] = False,
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            help="Read the values: RMS, range, zeros, NaN, exponents, updates by group.",
        ),
    ] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            metavar="GLOB",
            show_default=False,
            help="Only tensors with such a name, or without it: '*.weight', '!*.bias', "
            "'h.{0-3}.*'; may be repeated.",
        ),
    ] = None,
    sort: Annotated[
        str,
        typer.Option(metavar="file|name|size", help="Order of the list."),
    ] = "file",
    fields: Annotated[
        list[str] | None,
        typer.Option(
            "--field",
            metavar="NAME",
            show_default=False,
            help="Print one value: groups.0.lr, scheduler.0.last_epoch, step; may be repeated.",
        ),
    ] = None,
    statements: Annotated[
        list[str] | None,
        typer.Option(
            "--assert",
            metavar="TEXT",
            show_default=False,
            help="Exit with 1 unless it holds: 'groups.0.lr < 1e-3'; may be repeated.",
        ),
    ] = None,
    page: Annotated[
        str | None,
        typer.Option(
            "--html",
            metavar="FILE",
            show_default=False,
            help="Write one page with groups, schedule, histograms and RMS by layer.",
        ),
    ] = None,
    plot: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            show_default=False,
            help="Write the pictures alone, as .png or .svg; needs matplotlib.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace the page or picture if it exists.")
    ] = False,
    framework: options.Framework = None,
    optimizer: options.Optimizers = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a checkpoint holds: optimizer, schedule, tensors.

    Nothing in the file is executed, and only its headers are read, but for --stats, --html, --plot.
    """
    only = tuple(optimizer or ())
    if page is not None or plot is not None:
        if fields or statements or tensors or tree:
            raise ValueError("--html and --plot take no --tensors, --tree, --field or --assert")
        _pictures(path, framework, only, filters or (), page, plot, force, as_json)
    elif force:
        raise ValueError("--force belongs to --html and --plot; nothing else is written")
    elif fields or statements:
        _fields(path, framework, only, fields or (), statements or (), as_json)
    elif stats:
        _statistics(path, framework, only, filters or (), tensors, as_json)
    elif tensors or tree or filters:
        _tensors(path, framework, only, filters or (), sort, tree, as_json)
    else:
        _summary(path, framework, only, as_json)


def _summary(path: str, framework: str | None, optimizers: Sequence[str], as_json: bool) -> None:
    from liontool.inspect.summary import summarise

    summary = summarise(Path(path), framework, optimizers)
    if as_json:
        from liontool.cli import json_output

        json_output.write(summary.to_dict())
    else:
        from liontool.cli import summary_view

        summary_view.show(summary)


def _tensors(
    path: str,
    framework: str | None,
    optimizers: Sequence[str],
    filters: Sequence[str],
    order: str,
    as_tree: bool,
    as_json: bool,
) -> None:
    from liontool.cli import tensors_view
    from liontool.inspect.tensors import list_tensors

    found = list_tensors(Path(path), framework, filters, order, optimizers)
    tensors_view.scope(found, filters)
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        tensors_view.show(found, as_tree=as_tree)


def _statistics(
    path: str,
    framework: str | None,
    optimizers: Sequence[str],
    filters: Sequence[str],
    each: bool,
    as_json: bool,
) -> None:
    from liontool.cli import progress, tensors_view
    from liontool.inspect.statistics import statistics

    with progress.copying() as advance:
        found = statistics(Path(path), framework, filters, advance, optimizers)
    tensors_view.scope(found, filters)
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        from liontool.cli import statistics_view

        statistics_view.show(found, each=each)


def _fields(
    path: str,
    framework: str | None,
    optimizers: Sequence[str],
    fields: Sequence[str],
    statements: Sequence[str],
    as_json: bool,
) -> None:
    from liontool.cli import fields_view
    from liontool.inspect.fields import FieldReader

    reader = FieldReader(Path(path), framework, optimizers)
    if not fields_view.show(reader, fields, statements, as_json=as_json):
        raise typer.Exit(1)


def _pictures(
    path: str,
    framework: str | None,
    optimizers: Sequence[str],
    filters: Sequence[str],
    page: str | None,
    plot: str | None,
    force: bool,
    as_json: bool,
) -> None:
    from liontool.cli import progress
    from liontool.page.files import write_pictures

    with progress.copying() as advance:
        written = write_pictures(
            Path(path),
            page=None if page is None else Path(page),
            plot=None if plot is None else Path(plot),
            framework=framework,
            filters=filters,
            optimizers=optimizers,
            force=force,
            progress=advance,
        )
    if as_json:
        from liontool.cli import json_output

        json_output.write({"schema": 1, "written": list(map(str, written))})
    else:
        from liontool.cli import render

        render.Page().facts({"written": ", ".join(map(str, written))})

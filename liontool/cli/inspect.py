"""`liontool inspect`: what a checkpoint is and what is in it, from headers alone."""

from __future__ import annotations

import sys
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
    framework: options.Framework = None,
    as_json: options.AsJson = False,
) -> None:
    """Show what a checkpoint holds: optimizer, schedule, tensors.

    Nothing in the file is executed, and only its headers are read, but for --stats.
    """
    if fields or statements:
        _fields(path, framework, fields or (), statements or (), as_json)
    elif stats:
        _statistics(path, framework, filters or (), tensors, as_json)
    elif tensors or tree or filters:
        _tensors(path, framework, filters or (), sort, tree, as_json)
    else:
        _summary(path, framework, as_json)


def _summary(path: str, framework: str | None, as_json: bool) -> None:
    from liontool.inspect.summary import summarise

    summary = summarise(Path(path), framework)
    if as_json:
        from liontool.cli import json_output

        json_output.write(summary.to_dict())
    else:
        from liontool.cli import summary_view

        summary_view.show(summary)


def _tensors(
    path: str,
    framework: str | None,
    filters: Sequence[str],
    order: str,
    as_tree: bool,
    as_json: bool,
) -> None:
    from liontool.cli import tensors_view
    from liontool.inspect.tensors import list_tensors

    found = list_tensors(Path(path), framework, filters, order)
    if filters:
        print(tensors_view.scope(found.matched, found.total), file=sys.stderr)
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        tensors_view.show(found, as_tree=as_tree)


def _statistics(
    path: str, framework: str | None, filters: Sequence[str], each: bool, as_json: bool
) -> None:
    from liontool.cli import progress
    from liontool.inspect.statistics import statistics

    with progress.copying() as advance:
        found = statistics(Path(path), framework, filters, advance)
    if filters:
        from liontool.cli import tensors_view

        print(tensors_view.scope(found.matched, found.total), file=sys.stderr)
    if as_json:
        from liontool.cli import json_output

        json_output.write(found.to_dict())
    else:
        from liontool.cli import statistics_view

        statistics_view.show(found, each=each)


def _fields(
    path: str,
    framework: str | None,
    fields: Sequence[str],
    statements: Sequence[str],
    as_json: bool,
) -> None:
    from liontool.cli import fields_view
    from liontool.inspect.fields import FieldReader

    reader = FieldReader(Path(path), framework)
    if not fields_view.show(reader, fields, statements, as_json=as_json):
        raise typer.Exit(1)

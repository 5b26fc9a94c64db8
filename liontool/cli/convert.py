"""`liontool convert`: an AdamW checkpoint becomes a Lion checkpoint."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from liontool.cli import options


def convert(
    source: Annotated[
        str,
        typer.Argument(metavar="SRC", show_default=False, help=options.PATH_HELP),
    ],
    lr_ratio: Annotated[
        str | None,
        typer.Option(
            metavar="R|auto",
            show_default=False,
            help="Divide every learning rate by this, 3 to 10 in the papers; "
            "auto estimates it from the moments. Required.",
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "-o",
            "--output",
            metavar="OUT",
            show_default=False,
            help="Where to write; beside SRC in the same container if not given. "
            "A name in .safetensors or .pt takes the optimizer state alone.",
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(
            metavar="lion|lion-sf",
            help="Lion, or its schedule-free form.",
        ),
    ] = "lion",
    package: Annotated[
        str,
        typer.Option(
            "--for",
            metavar="PACKAGE",
            help="Whose Lion will load the result: liontool, lion-pytorch, timm ...",
        ),
    ] = "liontool",
    momentum: Annotated[
        str | None,
        typer.Option(
            metavar="copy|scaled|zeros",
            show_default=False,
            help="What Lion's momentum starts from. Default: copy for liontool, scaled for others.",
        ),
    ] = None,
    betas: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            show_default=False,
            help="Lion's betas. Default: 0.9,0.99.",
        ),
    ] = None,
    decay: Annotated[
        str,
        typer.Option(
            metavar="scaled|kept|decoupled",
            help="Weight decay: times the ratio, as it is, or for a Lion that decays without lr.",
        ),
    ] = "scaled",
    zero_stale: Annotated[
        bool,
        typer.Option(
            "--zero-stale",
            help="Write zeros where AdamW's momentum has died away (rows of rare tokens).",
        ),
    ] = False,
    framework: options.Framework = None,
    optimizer: options.Optimizers = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID",
            show_default=False,
            help="Go on in spite of a refusal with this id; may be repeated.",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace OUT if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show everything, write nothing.")
    ] = False,
    as_json: options.AsJson = False,
) -> None:
    """Turn an AdamW checkpoint into a Lion checkpoint of the same kind.

    The source is never touched. The last thing printed is what to change in your script.

    Example: liontool convert adamw.ckpt --lr-ratio 3
    """
    if lr_ratio is None:
        raise ValueError(_ratio_missing(source))
    ratio, pair = options.ratio(lr_ratio), options.betas(betas)
    from liontool.checkpoint.collector import paused_collector
    from liontool.cli import progress
    from liontool.convert import convert_checkpoint

    with progress.copying() as advance, paused_collector():
        report = convert_checkpoint(
            Path(source),
            output=Path(output) if output else None,
            lr_ratio=ratio,
            to=to,
            package=package,
            momentum=momentum,
            betas=pair,
            decay=decay,
            zero_stale=zero_stale,
            framework=framework,
            optimizers=tuple(optimizer or ()),
            allow=tuple(allow or ()),
            force=force,
            dry_run=dry_run,
            progress=advance,
        )
    if as_json:
        from liontool.cli import json_output

        json_output.write(report.to_dict())
    else:
        from liontool.cli import conversion_view

        conversion_view.show(report)


def _ratio_missing(source: str) -> str:
    return (
        "--lr-ratio is missing: Lion wants a learning rate 3 to 10 times smaller than AdamW's; "
        "give the factor (--lr-ratio 3), or have it estimated from the checkpoint: "
        f"liontool convert {shlex.quote(source)} --lr-ratio auto"
    )

"""Options that several commands have, and how words become values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

Source = Annotated[
    Path,
    typer.Argument(
        metavar="SRC", show_default=False, help="Checkpoint: a file, or a framework's folder."
    ),
]
Framework = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="plain, hf-trainer, lightning or liontool-state; found out if not given.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def ratio(text: str) -> Any:
    """A positive number, or "auto". The return type is Any because typer knows no unions."""
    if text == "auto":
        return text
    value = _number(text)
    if not math.isfinite(value) or value <= 0:
        raise typer.BadParameter(f"'{text}' must be a positive number such as 3, or auto")
    return value


def betas(text: str) -> Any:
    """Two numbers with a comma between; the library checks their range."""
    values = tuple(_number(word) for word in text.split(","))
    if len(values) != 2 or any(map(math.isnan, values)):
        raise typer.BadParameter(f"'{text}' must be two numbers such as 0.9,0.99")
    return values


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

"""Options that several commands have, and how words become values.

Every option is a flag or a word: `commands.PlainCommand` says why.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import typer

PATH_HELP = "Checkpoint: a file, or a framework's folder."
RUN_HELP = "Folder of a run, with its checkpoints in it."

Framework = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        show_default=False,
        help="plain, hf-trainer, lightning, liontool-state or run; found out if not given.",
    ),
]
Optimizers = Annotated[
    list[str] | None,
    typer.Option(
        "--optimizer",
        metavar="PATH",
        show_default=False,
        help="Only this optimizer, by its path in the file; may be repeated.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]


def ratio(text: str) -> float | Literal["auto"]:
    """A positive number, or "auto"."""
    if text == "auto":
        return "auto"
    value = _number(text)
    if not math.isfinite(value) or value <= 0:
        raise ValueError(f"--lr-ratio must be a positive number such as 3, or auto; got '{text}'")
    return value


def betas(text: str | None) -> tuple[float, float] | None:
    """Two numbers with a comma between; the library checks their range."""
    if text is None:
        return None
    values = [_number(word) for word in text.split(",")]
    if len(values) != 2 or any(map(math.isnan, values)):
        raise ValueError(f"--betas must be two numbers such as 0.9,0.99; got '{text}'")
    return values[0], values[1]


def count(flag: str, text: str) -> int:
    """A whole number; what range it may have the library checks."""
    if not text.isascii() or not text.isdecimal() or len(text) > 9:
        raise ValueError(f"{flag} must be a whole number such as 20, got '{text}'")
    return int(text)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan

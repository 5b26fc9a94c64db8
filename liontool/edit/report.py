"""What an edit did, as data: everything that the command prints is a field of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from liontool.checkpoint.plain_values import json_value
from liontool.edit.draft import Notice

SCHEMA = 1
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""

COPY, HEADER, NOTHING = "copy", "header", "nothing"
"""How the result was written: all anew, the header alone, or not at all: it was so before."""


@dataclass(frozen=True)
class Change:
    """One difference between before and after.

    Attributes:
        kind: "group", "scheduler", "state", "weight", "name" or "metadata".
        where: What it is: "groups.0.lr", "state.layers.{0-11}.weight.exp_avg".
        before: Its value or description before; None if it was not there.
        after: The same after; None if it is gone.
        count: How many tensors or parameters it stands for.
    """

    kind: str
    where: str
    before: Any
    after: Any
    count: int = 1


@dataclass(frozen=True)
class EditReport:
    """The whole edit.

    Attributes:
        source: Path that was edited.
        output: Path that was, or with `dry_run` would be, written.
        backup: Where the old one is kept, None if it is not.
        undo: The record by which the edit can be taken back, None if there is none.
        how: "header", "copy" or "nothing".
        framework: Name of the framework that was found; "" without an optimizer.
        container: Format of the source.
        words: The edits as they were given.
        changes: What is different.
        notices: Warnings and hints, in the order to show them.
        bytes_before: Size of the source on disk.
        bytes_after: Size of the output.
        provenance: The record that the output carries about itself.
        dry_run: Whether nothing was written.
    """

    source: str
    output: str
    backup: str | None
    undo: str | None
    how: str
    framework: str
    container: str
    words: tuple[str, ...]
    changes: tuple[Change, ...]
    notices: tuple[Notice, ...]
    bytes_before: int
    bytes_after: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        found: dict[str, Any] = json_value({"schema": SCHEMA, **asdict(self)})
        return found


@dataclass(frozen=True)
class UndoReport:
    """An edit in place that was taken back.

    Attributes:
        path: The file.
        left: How many edits more can be taken back.
    """

    path: str
    left: int

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        return {"schema": SCHEMA, **asdict(self)}

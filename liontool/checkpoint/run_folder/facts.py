"""run.json: what a checkpoint says of the run as a whole. Plain JSON; read after its hash."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.bounded_json import load
from liontool.checkpoint.run_folder.layout import FACTS, SCHEMA
from liontool.errors import FormatError, LayoutError

EXACT = "exact"
STATE_EXACT = "state-exact"
"""The levels: a restart repeats the run bit for bit, or only has all of its state."""


def read_facts(folder: Path) -> dict[str, Any]:
    """The content of a checkpoint's run.json, whose bytes were compared with COMMIT before.

    Raises:
        ReadError: It is not what liontool writes, or the system refused to read it.
        LayoutError: A newer liontool wrote it.
    """
    return read_object(folder / FACTS, "liontool.run")


def read_object(path: Path, version: str) -> dict[str, Any]:
    """A JSON file that names its layout; errors are those of `read_facts`.

    Args:
        path: The file.
        version: The field with the version of its layout.
    """
    body = load(path)
    if not isinstance(body, dict) or version not in body:
        raise FormatError(f"{path}: must be an object with '{version}'")
    if body[version] != SCHEMA:
        raise LayoutError(
            f"{path}: layout {body[version]!r:.40} is newer than this liontool; update it: "
            "pip install -U liontool"
        )
    return body

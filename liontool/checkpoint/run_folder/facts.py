"""run.json: what a checkpoint says of the run as a whole. Plain JSON; read after its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.layout import FACTS, SCHEMA
from liontool.errors import FormatError, LayoutError, LimitError, ReadError

MAX_BYTES = 4 << 20
"""What JSON can be made to stand for grows to thirty times its bytes."""

_MOST_DIGITS = 4000


def read_facts(folder: Path) -> Mapping[str, Any]:
    """The content of a checkpoint's run.json, whose bytes were compared with COMMIT before.

    Raises:
        FormatError: It is no JSON object.
        LimitError: It is larger than any that is written.
        LayoutError: A newer liontool wrote it.
        ReadError: The system refused to read it.
    """
    path = folder / FACTS
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(data) > MAX_BYTES:
        raise LimitError(f"{path}: is larger than {MAX_BYTES:,} bytes")
    try:
        facts = json.loads(data, parse_int=_short_int)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: is no JSON: {error!s:.200}") from None
    if not isinstance(facts, dict):
        raise FormatError(f"{path}: holds no object, but {type(facts).__name__}")
    if facts.get("liontool.run") != SCHEMA:
        raise LayoutError(
            f"{path}: has layout {facts.get('liontool.run')!r:.40}, and this liontool knows "
            f"{SCHEMA}; update it: pip install -U liontool"
        )
    return facts


def _short_int(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise ValueError(f"a number has {len(digits):,} digits")
    return int(digits)

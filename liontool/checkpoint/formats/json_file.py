"""JSON files of checkpoint folders, such as trainer_state.json; read with limits, never written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from liontool.checkpoint.document import Value
from liontool.errors import FormatError, LimitError

MAX_BYTES = 256 << 20
"""Size of a file. A trainer_state.json that logged a million steps has about 150 MB."""


class JsonDocument:
    """A JSON file as a Document."""

    container = "json"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        self.facts: Mapping[str, str] = {}
        self.overhead = path.stat().st_size
        if self.overhead > MAX_BYTES:
            raise LimitError(
                f"{path}: has {self.overhead} bytes; JSON is read up to {MAX_BYTES} bytes"
            )
        self.tree: Value = _parsed(path)


def _parsed(path: Path) -> Value:
    try:
        return json.loads(path.read_bytes())
    except RecursionError:
        raise LimitError(f"{path}: its JSON is nested too deeply") from None
    except ValueError as error:  # also bytes that are not text, and numbers of too many digits
        raise FormatError(f"{path}: is not valid JSON: {error}") from None

"""The record that a checkpoint carries about itself, with the edits that were made in it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from liontool.checkpoint.document import Edit
from liontool.checkpoint.formats.safetensors_edit import PROVENANCE
from liontool.checkpoint.header_hash import header_sha256
from liontool.checkpoint.source import Source
from liontool.checkpoint.writing import PROVENANCE_FILE
from liontool.convert.provenance import SCHEMA
from liontool.errors import ReadError
from liontool.version import __version__


def provenance(source: Source, words: Sequence[str], edits: Sequence[Edit]) -> dict[str, Any]:
    """What the source says about itself, and this edit as the last of its `edits`.

    Args:
        source: What was read.
        words: The edits as the user gave them.
        edits: What changes in the files.
    """
    record = _there(source) or {"schema": SCHEMA}
    earlier = record.get("edits")
    names = sorted({edit.place.document for edit in edits})
    this = {
        "liontool": __version__,
        "source": source.name,
        "source_bytes": source.size,
        "source_header_sha256": header_sha256(source.document(name) for name in names),
        "words": list(words),
    }
    return {**record, "edits": [*(earlier if isinstance(earlier, list) else ()), this]}


def _there(source: Source) -> dict[str, Any]:
    """The record that liontool left, if it did and it can be read."""
    try:
        if source.is_folder:
            there = PROVENANCE_FILE in source.listing()
            record = source.document(PROVENANCE_FILE).tree if there else {}
        else:
            facts = source.document().facts
            record = json.loads(facts.get("provenance") or facts.get(PROVENANCE) or "{}")
    except (ReadError, ValueError, RecursionError):
        return {}
    return dict(record) if isinstance(record, dict) else {}

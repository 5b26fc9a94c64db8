"""The record that a converted checkpoint carries about itself, read with suspicion."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from liontool.checkpoint.source import Source
from liontool.checkpoint.writing import PROVENANCE_FILE
from liontool.errors import ReadError
from liontool.states import LIONS

SCHEMA = 1
"""The version of the record that is read here."""

_MOST = 64 << 20


@dataclass(frozen=True)
class Record:
    """What a conversion says it did.

    Attributes:
        source: Name of the source.
        header_sha256: Hash of everything but tensors in the source.
        rule: "adamw to lion" or "adamw to lion-sf".
        package: Whose Lion it was made for, a key of `LIONS`.
        momentum: "copy", "scaled" or "zeros".
        betas: Lion's.
        decay: "scaled", "kept" or "decoupled".
        zero_stale: Whether dead momenta were zeroed.
        ratios: What learning rates were divided by, by the label of each optimizer.
    """

    source: str
    header_sha256: str
    rule: str
    package: str
    momentum: str
    betas: tuple[float, float]
    decay: str
    zero_stale: bool
    ratios: Mapping[str, float]


def record_of(source: Source) -> tuple[Record | None, str]:
    """The record of a checkpoint; or None, and why there is none that can be used."""
    text = _text(source)
    if text is None:
        return None, "it has no record of a conversion"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None, "its record of a conversion is no JSON"
    if not isinstance(value, dict) or value.get("schema") != SCHEMA:
        return None, "its record of a conversion is of a version that is not known"
    record = _record(value)
    return record, "" if record else "its record of a conversion lacks what a proof needs"


def _text(source: Source) -> str | bytes | None:
    if source.is_folder:
        path = source.path / PROVENANCE_FILE
        if PROVENANCE_FILE not in source.names() or path.stat().st_size > _MOST:
            return None
        try:
            return path.read_bytes()
        except OSError as error:
            raise ReadError(f"{path}: cannot be read: {error.strerror}") from error
    facts = source.document().facts
    return facts.get("provenance", facts.get("liontool.provenance"))


def _record(value: dict[str, Any]) -> Record | None:
    names = ("source_header_sha256", "rule", "package", "momentum", "decay")
    words = [value.get(key) for key in names]
    betas, ratios = _numbers(value.get("betas")), _ratios(value.get("optimizers"))
    if not all(isinstance(word, str) for word in words) or len(betas) != 2 or not ratios:
        return None
    header, rule, package, momentum, decay = map(str, words)
    known = rule in ("adamw to lion", "adamw to lion-sf") and package in LIONS
    if not known or not all(0 <= beta < 1 for beta in betas):
        return None
    if momentum not in ("copy", "scaled", "zeros") or decay not in ("scaled", "kept", "decoupled"):
        return None
    return Record(
        str(value.get("source")),
        header,
        rule,
        package,
        momentum,
        (betas[0], betas[1]),
        decay,
        value.get("zero_stale") is True,
        dict(ratios),
    )


def _ratios(value: Any) -> dict[str, float]:
    found: dict[str, float] = {}
    for item in value if isinstance(value, list) else ():
        ratio = _numbers([item.get("ratio")]) if isinstance(item, dict) else []
        if not ratio or ratio[0] <= 0:
            return {}
        found[str(item.get("label", ""))] = ratio[0]
    return found


def _numbers(value: Any) -> list[float]:
    """The finite numbers of a list; fewer than it has where something else is among them."""
    items = value if isinstance(value, list) else []
    numbers = [n for n in items if isinstance(n, (int, float)) and not isinstance(n, bool)]
    return [float(n) for n in numbers if abs(n) < 1e300 and isfinite(n)]

"""What a conversion did, as data: everything that the command prints is a field of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from liontool.checkpoint.plain_values import json_value

SCHEMA = 1
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""


@dataclass(frozen=True)
class Notice:
    """Something the user should know. `id` is stable, `text` one sentence."""

    id: str
    text: str


@dataclass(frozen=True)
class OptimizerReport:
    """One optimizer, before and after.

    Attributes:
        label: Its path in the file; "" where the file is the optimizer.
        kind: What it was: "AdamW", "Adam".
        ratio: What its learning rates were divided by.
        estimate: The evidence of `--lr-ratio auto`, else None.
        groups_before: Hyperparameters of each group, and `parameters` and `elements` in it.
        groups_after: The same under Lion.
        schedulers_before: Class and learning-rate fields of each scheduler that drives it.
        schedulers_after: The same after the conversion.
        dropped: State and group keys that Lion has no use for.
    """

    label: str
    kind: str
    ratio: float
    estimate: Mapping[str, Any] | None
    groups_before: tuple[Mapping[str, Any], ...]
    groups_after: tuple[Mapping[str, Any], ...]
    schedulers_before: tuple[Mapping[str, Any], ...]
    schedulers_after: tuple[Mapping[str, Any], ...]
    dropped: tuple[str, ...]


@dataclass(frozen=True)
class ConversionReport:
    """The whole conversion.

    Attributes:
        source: Path that was converted.
        output: Path that was, or with `dry_run` would be, written.
        framework: Name of the framework that was found.
        container: Format of the source.
        step: Optimizer steps so far, where known.
        to: "lion" or "lion-sf".
        package: Which Lion will load it.
        momentum: "copy", "scaled" or "zeros".
        optimizers: One report for each optimizer.
        notices: Warnings and hints, in the order to show them.
        bytes_before: Size of the source on disk.
        bytes_after: Size of the output.
        state_bytes_before: Memory of the optimizer state under AdamW.
        state_bytes_after: Memory of the optimizer state under Lion.
        script: What to change in the training script: code and settings, ready to paste.
        advice: The papers' advice that applies here, a sentence each.
        provenance: The record that the output carries about itself.
        dry_run: Whether nothing was written.
    """

    source: str
    output: str
    framework: str
    container: str
    step: int | None
    to: str
    package: str
    momentum: str
    optimizers: tuple[OptimizerReport, ...]
    notices: tuple[Notice, ...]
    bytes_before: int
    bytes_after: int
    state_bytes_before: int
    state_bytes_after: int
    script: tuple[str, ...]
    advice: tuple[str, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    dry_run: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first.

        NaN and infinities become "nan", "inf" and "-inf".
        """
        found: dict[str, Any] = json_value({"schema": SCHEMA, **asdict(self)})
        return found

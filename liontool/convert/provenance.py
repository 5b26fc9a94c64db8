"""The record that a converted checkpoint carries about itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from liontool.checkpoint.header_hash import checkpoint_sha256
from liontool.checkpoint.model import Checkpoint, Optimizer
from liontool.checkpoint.plain_values import json_value, plain
from liontool.checkpoint.source import Source
from liontool.checkpoint.state_file import scheduler_state
from liontool.convert.settings import Settings
from liontool.version import __version__

SCHEMA = 1
"""Version of the record; grows by one when a field changes its meaning or goes."""


def provenance(
    source: Source, before: Checkpoint, settings: Settings, ratios: Sequence[float]
) -> dict[str, Any]:
    """Where the state came from, by which rule, and what groups and schedulers were before.

    In the types of JSON, whatever the source holds.

    Args:
        source: What was read.
        before: The optimizers that are converted.
        settings: How they are converted.
        ratios: What the learning rates of each optimizer are divided by.
    """
    return {
        "schema": SCHEMA,
        "liontool": __version__,
        "source": source.name,
        "source_bytes": source.size,
        "source_header_sha256": checkpoint_sha256(source, before),
        "framework": before.framework,
        "facts": json_value(plain(before.facts)),
        "step": before.step,
        "rule": f"adamw to {settings.to}",
        "package": settings.package,
        "momentum": settings.momentum,
        "betas": list(settings.betas),
        "decay": settings.decay,
        "zero_stale": settings.zero_stale,
        "allow": sorted(settings.allow),
        "optimizers": [
            {"label": optimizer.label, "ratio": ratio, **_before(optimizer)}
            for optimizer, ratio in zip(before.optimizers, ratios, strict=True)
        ],
    }


def _before(optimizer: Optimizer) -> dict[str, Any]:
    return {
        # Names of parameters are still in the file, and there can be thousands.
        "groups": [json_value(plain(g.fields.without("param_names"))) for g in optimizer.groups],
        "schedulers": [scheduler_state(scheduler) for scheduler in optimizer.schedulers],
    }

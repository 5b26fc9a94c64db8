"""What the papers advise, where it applies to the run at hand.

From google/automl's lion README (Apache-2.0), https://github.com/google/automl/tree/master/lion,
and govorunov/lion-sf (MIT).
"""

from __future__ import annotations

from collections.abc import Iterator

from liontool.checkpoint.learning_rates import describe, walk
from liontool.checkpoint.model import Checkpoint
from liontool.convert.settings import DEFAULT_BETAS, Settings


def advice(checkpoint: Checkpoint, settings: Settings) -> Iterator[str]:
    """Sentences for the end of the report.

    Args:
        checkpoint: The optimizers and schedulers that were converted.
        settings: How.
    """
    if settings.to == "lion":
        yield (
            "If you change the learning rate again, change initial, peak and end value together; "
            "weight decay goes the other way."
        )
    if settings.betas == DEFAULT_BETAS:
        yield "Should the loss become unstable, convert with --betas 0.95,0.98."
    yield "Lion likes large batches: use 64 sequences or images and more for each step."
    if settings.to == "lion" and not _has_cosine(checkpoint):
        yield "A cosine schedule suits Lion better than one with the reciprocal square root."


def _has_cosine(checkpoint: Checkpoint) -> bool:
    """Whether a schedule is a cosine, by its class or by what the framework tells."""
    schedulers = [item for optimizer in checkpoint.optimizers for item in optimizer.schedulers]
    names = [describe(scheduler).name for scheduler in walk(schedulers)]
    return any("cosine" in str(word).lower() for word in (*names, *checkpoint.facts.values()))

"""The factor that Hugging Face's Trainer makes of its arguments: code there, so not in the file.

The formulas are those of `transformers/optimization.py` (Apache 2.0), rewritten.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from liontool.checkpoint.model import Checkpoint

Factor = Callable[[int], float]


def factor_of(checkpoint: Checkpoint) -> tuple[Factor, int] | None:
    """What is known of the code behind a checkpoint's LambdaLR: where Trainer wrote it."""
    return trainer_factor(checkpoint.facts) if checkpoint.framework == "hf-trainer" else None


def trainer_factor(facts: Mapping[str, Any]) -> tuple[Factor, int] | None:
    """What Trainer multiplies base_lrs with at each step, and its last step.

    Args:
        facts: What the folder says of TrainingArguments and of the state.

    Returns:
        None for schedules that are not evaluated, and where something is not known.
    """
    total, kind = facts.get("max_steps"), facts.get("lr_scheduler_type")
    if not isinstance(total, int) or total <= 0 or facts.get("lr_scheduler_kwargs"):
        return None
    decay = _DECAYS.get(str(kind))
    if decay is None:
        return None
    warm_up = _warm_up(facts, total)

    def factor(step: int) -> float:
        if step < warm_up:
            return step / max(1, warm_up)
        return decay((step - warm_up) / max(1, total - warm_up))

    return (factor if kind != "constant" else lambda step: 1.0), total


_DECAYS: Mapping[str, Callable[[float], float]] = {
    "linear": lambda part: max(0.0, 1 - part),
    "cosine": lambda part: max(0.0, (1 + math.cos(math.pi * part)) / 2),
    "constant": lambda part: 1.0,
    "constant_with_warmup": lambda part: 1.0,
}


def _warm_up(facts: Mapping[str, Any], total: int) -> int:
    """Steps, or a share of all steps."""
    for name in ("warmup_steps", "warmup_ratio"):
        value = facts.get(name)
        if isinstance(value, (int, float)) and value > 0:
            return math.ceil(total * value) if value < 1 else int(value)
    return 0

"""What `best` goes by: read from the GPU only when a save needs it."""

from __future__ import annotations

from typing import Any

import torch


class Metric:
    """The metric of the last step.

    Args:
        is_needed: Whether every step must have one.
    """

    def __init__(self, is_needed: bool) -> None:
        self._is_needed = is_needed
        self._value: Any = None

    def take(self, value: Any) -> None:
        """Keep it, without waiting for it.

        Raises:
            ValueError: It is needed and not there, or no single number.
        """
        if value is None and self._is_needed:
            raise ValueError(
                "keep=dict(best=...) needs a metric at each step: run.step(metric=loss)"
            )
        if isinstance(value, torch.Tensor):
            if value.numel() != 1 or value.is_complex():
                raise ValueError(f"metric must be one number, got shape {tuple(value.shape)}")
            value = value.detach().clone()  # the body may change it before it is read
        elif value is not None:
            value = _number(value)
        self._value = value

    def value(self) -> float | None:
        """The number."""
        return None if self._value is None else float(self._value)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"metric must be one number, got {value!r:.80}") from None

"""A GPU repeats its bits only where it was told to."""

from __future__ import annotations

import pytest
import torch

from liontool.resume.exactness import device_reasons

AWAY = torch.empty(2, device="meta")  # any device that is no CPU


def test_cpu_is_exact() -> None:
    """Nothing is said of a CPU."""
    assert list(device_reasons([torch.empty(2)])) == []


def test_other_devices_are_named() -> None:
    """Elsewhere kernels may add in any order."""
    (reason,) = device_reasons([torch.empty(2), AWAY, AWAY])
    assert reason.startswith("kernels on meta need not give the same bits twice; call torch.use_")


def test_deterministic_algorithms(monkeypatch: pytest.MonkeyPatch) -> None:
    """With torch's setting there is no reason."""
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert list(device_reasons([AWAY])) == []

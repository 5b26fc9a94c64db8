"""How much memory a step needs beside weights, gradients and state."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import Parameter

from liontool.optim import _update
from support.lions import configurations, give_gradients

TENSORS, NUMEL = 10, 128
OPTIONS = ("default", "maximize", "cautious", "clipvalue", "skip")


def _intermediates(kind: Any, options: dict[str, Any], dtype: torch.dtype = torch.float32) -> float:
    """What a second step needs and gives back, in copies of all parameters as float32."""
    params = [Parameter(torch.rand(NUMEL).to(dtype)) for _ in range(TENSORS)]
    optimizer = kind(params, **{"lr": 0.01, **options})
    give_gradients(params)
    optimizer.step()
    tracker = MemTracker()
    tracker.track_external(*params, optimizer)
    with tracker:
        optimizer.step()
    peak, after = (
        tracker.get_tracker_snapshot(when)[torch.device("cpu")]["Total"]
        for when in ("peak", "current")
    )
    return float(peak - after) / (TENSORS * NUMEL * 4)


@pytest.mark.parametrize("name", OPTIONS)
def test_foreach_needs_one_more_copy_than_the_loop(kind: Any, name: str) -> None:
    """At most, as torch asks of its own."""
    options = configurations(kind)[name]
    loop, foreach = (
        _intermediates(kind, {**options, "foreach": foreach}) for foreach in (False, True)
    )
    assert foreach <= loop + 1.01


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_a_step_needs_does_not_grow_with_the_model(
    kind: Any, name: str, foreach: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dozen copies of a tenth of the parameters, if a chunk is no larger than that."""
    monkeypatch.setattr(_update, "CHUNK_OF_CPU", NUMEL)
    options = {**configurations(kind)[name], "foreach": foreach}
    assert 0 < _intermediates(kind, options, dtype) <= 1.3

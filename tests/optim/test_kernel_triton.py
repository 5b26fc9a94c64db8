"""What optimizers hand to the Triton kernels, without the kernels."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF, _kernel_triton, _sharding
from liontool.optim._batch import Batch
from liontool.optim.kernels import triton_op
from liontool.optim.kernels.triton_owner import Owner

Calls = list[tuple[Any, dict[str, Any]]]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """The entries and the options of each call of the operator, which does nothing."""
    seen: Calls = []
    monkeypatch.setattr(_kernel_triton, "unsupported", lambda *_: None)
    monkeypatch.setattr(
        triton_op,
        "step",
        lambda owner, entries, grads, hypers, **options: seen.append((entries, options)),
    )
    return seen


def batches_of(kind: Any, devices: tuple[str, ...] = ("cpu",), **options: Any) -> list[Batch]:
    """Those of an optimizer with a parameter on each device."""
    params = [Parameter(torch.ones(3, device=device)) for device in devices]
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer = kind(params, **options)
    optimizer.init_state()
    batches: list[Batch] = optimizer._batches()
    return batches


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize(
    ("kind", "options", "sums"),
    [
        (Lion, {}, False),
        (Lion, {"cautious_factor": 0.0}, True),
        (Lion, {"global_clipnorm": 1.0}, True),
        (LionSF, {}, True),
    ],
    ids=["lion", "caution", "clip", "lion_sf"],
)
def test_sums_over_shards_have_no_kernel_in_a_graph(
    monkeypatch: pytest.MonkeyPatch,
    calls: Calls,
    kind: Any,
    options: dict[str, Any],
    sums: bool,
    sharded: bool,
) -> None:
    """Shards that need no sum have one, and so have whole tensors."""
    batches = batches_of(kind, **options)
    if sharded:
        monkeypatch.setattr(_sharding, "local", Tensor.detach)
    taken = not (sums and sharded)
    assert _kernel_triton.trace(Owner(), batches, None, None) == taken
    assert len(calls) == taken


def test_scale_and_flag_come_to_every_device_of_a_graph(calls: Calls) -> None:
    """GradScaler has one of each, on one device."""
    batches = batches_of(Lion, devices=("cpu", "meta"))
    assert _kernel_triton.trace(Owner(), batches, torch.ones(1), torch.zeros(1))
    devices = [entries[0].param.device.type for entries, _ in calls]
    assert devices == ["cpu", "meta"]
    for name in ("grad_scale", "found_inf"):
        assert [options[name].device.type for _, options in calls] == devices


def test_scale_and_flag_come_to_every_device() -> None:
    """The same without a graph."""
    (batch,) = batches_of(Lion)
    seen: list[dict[str, Any]] = []
    plan = object.__new__(_kernel_triton.Plan)
    plan._parts = [
        SimpleNamespace(  # type: ignore[misc]
            members=[0],
            device=torch.device(device),
            step=lambda grads, hypers, **options: seen.append(options),
        )
        for device in ("cpu", "meta")
    ]
    plan.step([batch.group], [torch.ones(3)], torch.ones(1), torch.zeros(1))
    for name in ("grad_scale", "found_inf"):
        assert [options[name].device.type for options in seen] == ["cpu", "meta"]

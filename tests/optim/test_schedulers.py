"""Every scheduler of torch drives both Lions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler

from liontool.optim import Lion, LionSF

SCHEDULERS: dict[str, Any] = {
    "LambdaLR": lambda o: lr_scheduler.LambdaLR(o, lambda n: 0.9**n),
    "MultiplicativeLR": lambda o: lr_scheduler.MultiplicativeLR(o, lambda n: 0.9),
    "StepLR": lambda o: lr_scheduler.StepLR(o, 2),
    "MultiStepLR": lambda o: lr_scheduler.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: lr_scheduler.ConstantLR(o, total_iters=2),
    "LinearLR": lambda o: lr_scheduler.LinearLR(o),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, 0.9),
    "SequentialLR": lambda o: lr_scheduler.SequentialLR(
        o, [lr_scheduler.LinearLR(o), lr_scheduler.ExponentialLR(o, 0.9)], [2]
    ),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, 6),
    "ChainedScheduler": lambda o: lr_scheduler.ChainedScheduler([lr_scheduler.StepLR(o, 2)]),
    "ReduceLROnPlateau": lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=1),
    "CyclicLR": lambda o: lr_scheduler.CyclicLR(o, 1e-4, 1e-2, step_size_up=3),
    "CosineAnnealingWarmRestarts": lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 2),
    "OneCycleLR": lambda o: lr_scheduler.OneCycleLR(o, 1e-2, total_steps=8),
    "PolynomialLR": lambda o: lr_scheduler.PolynomialLR(o, 6),
    "SWALR": lambda o: torch.optim.swa_utils.SWALR(o, 1e-4, anneal_epochs=3),
}


def test_the_list_is_complete() -> None:
    """A scheduler that a new torch brings is tried here too."""
    assert set(lr_scheduler.__all__) - {"LRScheduler"} <= set(SCHEDULERS)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("kind", [Lion, LionSF])
def test_scheduler(kind: Any, name: str) -> None:
    """It accepts the optimizer, moves its lr, and the optimizer's own copy survives a reload."""
    param = torch.nn.Parameter(torch.ones(3))
    optimizer = kind([param], lr=1e-2)
    scheduler = SCHEDULERS[name](optimizer)
    seen = set()
    for _ in range(6):
        param.grad = torch.ones(3)
        optimizer.step()
        scheduler.step(*([1.0] if name == "ReduceLROnPlateau" else []))
        seen.add(float(optimizer.param_groups[0]["lr"]))
    assert len(seen) > 1
    twin = kind([torch.nn.Parameter(torch.ones(3))])
    twin.load_state_dict(optimizer.state_dict())
    kept = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    assert {key: twin.param_groups[0][key] for key in kept} == kept

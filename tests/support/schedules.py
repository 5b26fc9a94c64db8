"""Schedules of every class of torch, and what torch makes of them when it resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim import lr_scheduler as torch_schedulers

Make = Callable[[torch.optim.Optimizer], Any]

LAST = 60
"""Beyond the end of each of the schedules below that has one."""


def step(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.StepLR(optimizer, 7, gamma=0.3)


def multi_step(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.MultiStepLR(optimizer, [20, 3, 9, 9], gamma=0.5)


def constant(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.ConstantLR(optimizer, factor=0.3, total_iters=10)


def linear(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.LinearLR(optimizer, 0.1, 0.7, total_iters=25)


def polynomial(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.PolynomialLR(optimizer, total_iters=40, power=1.7)


def exponential(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.ExponentialLR(optimizer, 0.93)


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CosineAnnealingLR(optimizer, 11, eta_min=1e-5)


def cosine_of_odd_length(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CosineAnnealingLR(optimizer, 12.5)


def warm_restarts(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CosineAnnealingWarmRestarts(optimizer, 5, T_mult=2, eta_min=1e-6)


def even_restarts(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CosineAnnealingWarmRestarts(optimizer, 8)


def one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.OneCycleLR(optimizer, [0.02, 0.3], total_steps=LAST)


def one_cycle_in_three_phases(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.OneCycleLR(
        optimizer, 0.1, total_steps=LAST, three_phase=True, anneal_strategy="linear",
        cycle_momentum=False,
    )  # fmt: skip


def cyclic(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CyclicLR(optimizer, [1e-3, 2e-3], 0.1, 6, 9)


def cyclic_that_halves(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CyclicLR(optimizer, 1e-3, 0.1, 6, mode="triangular2")


def cyclic_that_decays(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.CyclicLR(optimizer, 1e-3, 0.1, 6, mode="exp_range", gamma=0.98)


def swa(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.swa_utils.SWALR(optimizer, [0.05, 0.5], anneal_epochs=20)


def swa_at_once(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.swa_utils.SWALR(optimizer, 0.05, 0, anneal_strategy="linear")


def sequential(optimizer: torch.optim.Optimizer) -> Any:
    parts = [linear(optimizer), cosine(optimizer), step(optimizer), exponential(optimizer)]
    return torch_schedulers.SequentialLR(optimizer, parts, [6, 25, 40])


def sequential_of_waves(optimizer: torch.optim.Optimizer) -> Any:
    parts = [constant(optimizer), warm_restarts(optimizer), cyclic(optimizer), swa(optimizer)]
    return torch_schedulers.SequentialLR(optimizer, parts, [4, 15, 44])


def sequential_of_the_others(optimizer: torch.optim.Optimizer) -> Any:
    parts = [polynomial(optimizer), multi_step(optimizer), constant(optimizer), linear(optimizer)]
    return torch_schedulers.SequentialLR(optimizer, parts, [3, 20, 35])


def sequential_in_sequential(optimizer: torch.optim.Optimizer) -> Any:
    parts = [sequential(optimizer), exponential(optimizer)]
    return torch_schedulers.SequentialLR(optimizer, parts, [50])


def chained(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.ChainedScheduler([constant(optimizer), exponential(optimizer)])


def chained_with_cosine(optimizer: torch.optim.Optimizer) -> Any:
    return torch_schedulers.ChainedScheduler([linear(optimizer), cosine(optimizer)])


def chained_without_end(optimizer: torch.optim.Optimizer) -> Any:
    long = torch_schedulers.CosineAnnealingLR(optimizer, LAST + 1, 1e-5)
    return torch_schedulers.ChainedScheduler([exponential(optimizer), long])


MAKERS: tuple[Make, ...] = (
    step, multi_step, constant, linear, polynomial, exponential, cosine, cosine_of_odd_length,
    warm_restarts, even_restarts, one_cycle, one_cycle_in_three_phases, cyclic,
    cyclic_that_halves, cyclic_that_decays, swa, swa_at_once, sequential, sequential_of_waves,
    sequential_of_the_others, sequential_in_sequential, chained, chained_with_cosine,
    chained_without_end,
)  # fmt: skip


def two_groups() -> torch.optim.AdamW:
    """An optimizer with two learning rates."""
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))]} for _ in range(2)]
    groups[1]["lr"] = 0.03
    return torch.optim.AdamW(groups, lr=0.01)


def stepped(make: Make, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """An optimizer and its scheduler after some steps."""
    optimizer = two_groups()
    scheduler = make(optimizer)
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
    return optimizer, scheduler


def save(optimizer: torch.optim.Optimizer, scheduler: Any, path: Path) -> None:
    """As a script does it."""
    torch.save({"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}, path)


def resumed(make: Make, path: Path) -> tuple[torch.optim.Optimizer, Any]:
    """What torch makes of the file."""
    state = torch.load(path, weights_only=True)
    optimizer = two_groups()
    scheduler = make(optimizer)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    return optimizer, scheduler


def rates_of(make: Make, path: Path, factor: float, steps: int) -> list[list[float]]:
    """The rates of torch after each step, where only the groups' lr in the file was changed."""
    optimizer, real = resumed(make, path)
    for group in optimizer.param_groups:
        group["lr"] *= factor
    found = []
    for _ in range(steps):
        real.step()
        found.append([group["lr"] for group in optimizer.param_groups])
    return found


def shows(rates: list[float], changed: list[float]) -> bool | None:
    """Whether a change of lr is still seen; None where the rate is 0 either way."""
    if not any(rates) and not any(changed):
        return None
    return changed != pytest.approx(rates, rel=1e-9, abs=1e-15)

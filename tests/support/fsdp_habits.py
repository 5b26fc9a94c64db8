"""What users do with an optimizer beside stepping, on one process or on shards of many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from liontool.optim import Lion, LionSF
from support.fsdp_runs import full, give, weights_of_an_odd_model
from support.shards import said


def habits() -> dict[str, Any]:
    """All of them, by name."""
    every = (raising, metrics, versions, averages, scaler, compiled, placements)
    return {habit.__name__: habit() for habit in every}


def raising() -> tuple[str, bool]:
    """What is said of a NaN that one rank has, and whether nothing changed anywhere."""
    params = weights_of_an_odd_model()
    before = list(map(full, params))
    give(params, _with_a(torch.nan))
    words = said(Lion(params, nonfinite="raise").step)
    return words, all(map(torch.equal, before, map(full, params)))


def metrics() -> list[dict[str, Tensor]]:
    """The telemetry of a step."""
    params = weights_of_an_odd_model(torch.bfloat16)
    optimizer = LionSF(params, lr=1e-3, cautious_factor=0.5)
    optimizer.step_metrics()
    for seed in range(3):
        give(params, _noise(seed))
        optimizer.step()
    return optimizer.step_metrics()


def versions() -> list[int]:
    """How often autograd thinks that each parameter was written in one step."""
    params = weights_of_an_odd_model()
    before = [param._version for param in params]
    give(params, torch.ones)
    Lion(params).step()
    return [param._version - old for param, old in zip(params, before, strict=True)]


def averages() -> list[Tensor]:
    """Weights before, in and after the averages, and with them put in."""
    params = weights_of_an_odd_model(torch.bfloat16)
    optimizer = Lion(params, lr=1e-2, use_ema=True, ema_momentum=0.5, rounding="split")
    for seed in range(3):
        give(params, _noise(seed))
        optimizer.step()
    seen = list(map(full, params))
    with optimizer.averaged_weights():
        seen += map(full, params)
    seen += map(full, params)
    optimizer.finalize_variable_values()
    return [*seen, *map(full, params)]


def scaler() -> list[tuple[int, float]]:
    """The count and the scale after each of three steps, the second with an infinity."""
    params = weights_of_an_odd_model()
    optimizer = Lion(params)
    grad_scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    seen = []
    for bad in (1.0, torch.inf, 1.0):
        grad_scaler.scale(torch.zeros(1))
        give(params, _with_a(bad))
        grad_scaler.step(optimizer)
        grad_scaler.update()
        seen.append((int(optimizer.param_groups[0]["step"]), grad_scaler.get_scale()))
    return seen


def compiled() -> bool:
    """Whether one graph, collectives and all, steps as the plain call does."""
    plain, traced = weights_of_an_odd_model(), weights_of_an_odd_model()
    step = LionSF(plain, lr=1e-3).step
    graph = torch.compile(LionSF(traced, lr=1e-3).step, backend="eager", fullgraph=True)
    for seed in range(3):
        give(plain, _noise(seed))
        give(traced, _noise(seed))
        step()
        graph()
    return all(map(torch.equal, map(full, plain), map(full, traced)))


def placements() -> bool:
    """Whether all state is cut as its parameter is."""
    params = weights_of_an_odd_model(torch.bfloat16)
    optimizer = Lion(params, rounding="split", use_ema=True, gradient_accumulation_steps=2)
    optimizer.init_state()
    cuts = {
        (type(value), getattr(value, "placements", None), getattr(param, "placements", None))
        for param, state in optimizer.state.items()
        for value in state.values()
    }
    return all(mine == its for _, mine, its in cuts) and len(cuts) == 1


def counted_with_lr_0() -> list[int]:
    """Steps after a first one with lr 0, when one rank has a gradient, and when none has."""
    counted = []
    for bad in (1.0, 0.0):
        params = weights_of_an_odd_model()
        optimizer = Lion(params, lr=0.0)
        give(params, _with_a(bad))
        optimizer.step()
        counted.append(int(optimizer.param_groups[0]["step"]))
        assert all(isinstance(param, DTensor) for param in optimizer.state)
    return counted


def _with_a(value: float) -> Any:
    """Zeros but for the first element, which only the first rank has."""

    def grad(shape: torch.Size) -> Tensor:
        zeros = torch.zeros(shape)
        zeros[(0,) * len(shape)] = value
        return zeros

    return grad


def _noise(seed: int) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator)

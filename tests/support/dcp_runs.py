"""Optimizer state through torch.distributed.checkpoint, on one process or on shards of many."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    get_state_dict,
    set_optimizer_state_dict,
    set_state_dict,
)
from torch.distributed.fsdp import fully_shard

from liontool.optim import LionSF
from liontool.optim._base import LionBase
from support.fsdp_runs import full, give

# State of four dtypes and shapes beside bfloat16 weights, and options that are not the defaults.
OPTIONS: dict[str, Any] = {
    "lr": 1e-2, "weight_decay": 0.1, "decoupled_weight_decay": True, "rounding": "split",
    "state_dtype": torch.float32, "use_ema": True, "gradient_accumulation_steps": 2,
    "agreement": "group_signed", "pow": 2.0,
}  # fmt: skip
FLAT = {"flatten_optimizer_state_dict": True}
FULL = {"full_state_dict": True}
OFFLOAD = {"full_state_dict": True, "cpu_offload": True}  # on rank 0 alone
BROADCAST = {"full_state_dict": True, "broadcast_from_rank0": True}
# How state is taken, and how it is put back; torch knows a flat one when it sees it.
WAYS: dict[str, tuple[dict[str, bool], dict[str, bool]]] = {
    "nested": ({}, {}),
    "flat": (FLAT, FLAT),
    "on the CPU": ({"cpu_offload": True}, {"cpu_offload": True}),
    "full": (FULL, FULL),
    "full flat": (FULL | FLAT, FULL),
    "from rank 0": (OFFLOAD, BROADCAST),
    "flat from rank 0": (OFFLOAD | FLAT, BROADCAST),
}

FROM_ONE = {"each rank has it": FULL, "rank 0 has it": BROADCAST}


class Run:
    """A model in bfloat16 and its optimizer, two groups of different options.

    Args:
        seed: Of the weights.
        options: In place of the optimizer's own.
    """

    def __init__(self, seed: int = 0, options: dict[str, Any] | None = None) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(3, 7), nn.Linear(7, 3)).bfloat16()
        if distributed.is_initialized():
            fully_shard(self.model)
        first, second = (list(layer.parameters()) for layer in self.model)
        groups = [{"params": first}, {"params": second, "weight_decay": 0.0}]
        self.optimizer: LionBase = LionSF(groups, **(OPTIONS if options is None else options))

    def train(self, seeds: range) -> Run:
        """Step on gradients that the seeds make."""
        params = list(self.model.parameters())
        for seed in seeds:
            generator = torch.Generator().manual_seed(seed)
            give(params, lambda shape: torch.randn(shape, generator=generator))  # noqa: B023
            self.optimizer.step()
        self.optimizer.zero_grad()
        return self

    def trained(self) -> Run:
        """Some way into training, with things in the groups that only training puts there."""
        self.optimizer.param_groups[0]["horizon"] = 10.0
        self.train(range(5))
        for group in self.optimizer.param_groups:
            group["lr"] = 3e-3
        return self

    def facts(self) -> dict[str, Any]:
        """Everything that must survive."""
        state = {
            f"{name}.{key}": full(value)
            for name, param in self.model.named_parameters()
            for key, value in self.optimizer.state[param].items()
        }
        groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in self.optimizer.param_groups
        ]
        weights = {name: full(param) for name, param in self.model.named_parameters()}
        return {"state": state, "groups": groups, "weights": weights}


def empty() -> Run:
    """A run that shares no option with the one that is saved, but the kinds of state it keeps."""
    options = {**OPTIONS, "lr": 1.0, "weight_decay": 0.5, "pow": 1.0, "agreement": "tensor"}
    return Run(seed=1, options=options)


def through_memory(ways: list[str]) -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """For each way, facts of a run and of another that got its state."""
    return {way: _through_memory(*WAYS[way]) for way in ways}


def _through_memory(
    take: dict[str, bool], put: dict[str, bool]
) -> tuple[dict[str, Any], dict[str, Any]]:
    old, new = Run().trained(), empty()
    new.model.load_state_dict(old.model.state_dict())
    state = get_optimizer_state_dict(old.model, old.optimizer, options=StateDictOptions(**take))
    set_optimizer_state_dict(new.model, new.optimizer, state, options=StateDictOptions(**put))
    return _facts_and_later(old), _facts_and_later(new)


def from_one_process(state: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each way to hand a whole state to shards, the facts of a run that got it."""
    return {name: _from_one_process(state, way) for name, way in FROM_ONE.items()}


def _from_one_process(state: dict[str, Any], way: dict[str, bool]) -> dict[str, Any]:
    run, twin = empty(), Run()
    run.model.load_state_dict(twin.trained().model.state_dict())
    told = state if distributed.get_rank() == 0 or way is FULL else {}
    options = StateDictOptions(**way)
    set_optimizer_state_dict(run.model, run.optimizer, _copied(told), options=options)
    return _facts_and_later(run)


def save(folders: dict[bool, str]) -> dict[str, Any]:
    """Save a run, nested and flat; returns its facts."""
    run = Run().trained()
    for flat, folder in folders.items():
        dcp.save(_state(run, flat), checkpoint_id=folder)
    return _facts_and_later(run)


def load(folders: dict[bool, str]) -> dict[bool, dict[str, Any]]:
    """The facts of runs that got what was saved."""
    return {flat: _load(folder, flat) for flat, folder in folders.items()}


def _load(folder: str, flat: bool) -> dict[str, Any]:
    run = empty()
    state = _state(run, flat)
    dcp.load(state, checkpoint_id=folder)
    set_state_dict(
        run.model,
        run.optimizer,
        model_state_dict=state["model"],
        optim_state_dict=state["optimizer"],
    )
    return _facts_and_later(run)


def _state(run: Run, flat: bool) -> dict[str, Any]:
    options = StateDictOptions(**(FLAT if flat else {}))
    weights, state = get_state_dict(run.model, run.optimizer, options=options)
    return {"model": weights, "optimizer": state}


def _facts_and_later(run: Run) -> dict[str, Any]:
    now = run.facts()
    return {"now": _copied(now), "later": _copied(run.train(range(5, 9)).facts())}


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    return [_copied(entry) for entry in value] if isinstance(value, list) else value

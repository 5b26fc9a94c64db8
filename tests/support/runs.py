"""What a training run showed of itself, whichever framework ran it."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
import torch

Tensors = dict[str, torch.Tensor]


@dataclass
class Recording:
    """Learning rates by step and group, losses by step, and tensors by name at one moment.

    Attributes:
        first_step: Steps done when the recorded run began.
        last_step: Steps done when it ended.
        rates: For every step that was taken, the learning rate of each group.
        betas: For every step that was taken, the first beta of the first group.
        losses: The loss of every step.
        weights: At the moment of saving, or just after the resume.
        momenta: `exp_avg` at the same moment.
        keys: Names in the state of each parameter at that moment.
        groups: Hyperparameters of the groups at that moment.
    """

    first_step: int = 0
    last_step: int = 0
    rates: list[list[float]] = field(default_factory=list)
    betas: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    weights: Tensors = field(default_factory=dict)
    momenta: Tensors = field(default_factory=dict)
    keys: set[str] = field(default_factory=set)
    groups: list[dict] = field(default_factory=list)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Note what the coming step will use."""
        self.rates.append([float(group["lr"]) for group in optimizer.param_groups])
        self.betas.append(float(optimizer.param_groups[0]["betas"][0]))

    def moment(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Keep weights and momenta as they are now."""
        named = dict(model.named_parameters())
        self.weights = {name: param.detach().clone() for name, param in named.items()}
        self.momenta = {
            name: optimizer.state[param]["exp_avg"].clone()
            for name, param in named.items()
            if "exp_avg" in optimizer.state.get(param, {})
        }
        self.keys = {key for state in optimizer.state.values() for key in state}
        self.groups = [
            {key: value for key, value in group.items() if key != "params"}
            for group in optimizer.param_groups
        ]


def convert_by_command(source: Path, output: Path, ratio: float) -> Path:
    """`liontool convert`, in a process of its own that knows nothing of the run."""
    command = [sys.executable, "-m", "liontool", "convert", str(source), "-o", str(output)]
    subprocess.run([*command, "--lr-ratio", str(ratio)], check=True, capture_output=True)
    return output


def same_bits(left: Tensors, right: Tensors) -> bool:
    """Whether the same names hold equal tensors, bit for bit."""
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) for name in left
    )


def worst_ratio_error(control: list[list[float]], rates: list[list[float]], ratio: float) -> float:
    """The largest relative difference between `rates` and the control's divided by `ratio`."""
    pairs = [
        (expected / ratio, rate)
        for steps in zip(control, rates, strict=True)
        for expected, rate in zip(*steps, strict=True)
    ]
    return max(abs(rate - expected) / expected if expected else rate for expected, rate in pairs)


def all_finite(values: list[float]) -> bool:
    return bool(values) and all(map(math.isfinite, values))


def once_each(
    factory: pytest.TempPathFactory, train: Callable[[Path, str], tuple[Path, Recording]]
) -> Callable[[str], tuple[Path, Recording]]:
    """What a schedule's run gives, which is trained in a folder of its own the first time."""

    @cache
    def run(schedule: str) -> tuple[Path, Recording]:
        return train(factory.mktemp(schedule), schedule)

    return run

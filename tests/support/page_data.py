"""Summaries and statistics made by hand, and a small GPT's real checkpoint, for pages."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from liontool.inspect.lr_curve import Curve, GroupCurve
from liontool.inspect.statistics import Statistics, TensorStatistics
from liontool.inspect.summary import (
    FileSummary,
    GroupSummary,
    OptimizerSummary,
    SchedulerSummary,
    Summary,
)
from liontool.measure.summary import ValueSummary, merged

KINDS = ("weight", "exp_avg", "exp_avg_sq")
HOSTILE = "</text></svg><script>boom()</script><img src=x onerror=boom()>\"'&\u202etxt\x1b[2J"


def values(rms: float = 0.02, **changes: Any) -> ValueSummary:
    """A hundred values of about that size."""
    given = {
        "count": 100, "rms": rms, "norm": 10 * rms, "mean": 0.0, "min": 0.0, "max": 2 * rms,
        "lowest_exponent": -12, "exponents": (1, 9, 60, 30),
    }  # fmt: skip
    return ValueSummary(**{**given, **changes})


def tensor(
    parameter: str, kind: str = "weight", found: ValueSummary | None = None, **changes: Any
) -> TensorStatistics:
    """One tensor of a parameter."""
    is_weight = kind == "weight"
    name = parameter if is_weight else f"state.{parameter}.{kind}"
    role = "weight" if is_weight else "state"
    shape, count = (10, 10), found if found is not None else values()
    return TensorStatistics(
        name, name, role, kind, parameter, 0, 0, "float32", shape, None, count, **changes
    )  # fmt: skip


def statistics(tensors: Iterable[TensorStatistics]) -> Statistics:
    """All of them together."""
    found = tuple(tensors)
    kinds = dict.fromkeys(one.kind for one in found)
    together = {k: merged(one.values for one in found if one.kind == k) for k in kinds}
    return Statistics("run/a.ckpt", len(found), len(found), 400, found, together, ())


def network(layers: int, parts: Iterable[str], prefix: str = "model.layers") -> Statistics:
    """Weights and moments of a stack of layers, with an embedding before them."""
    names = [f"{prefix}.{layer}.{part}" for layer in range(layers) for part in parts]
    return statistics(
        tensor(name, kind, values(0.001 * (index + 1)))
        for index, name in enumerate(["model.embed.weight", *names])
        for kind in KINDS
    )


def curve(groups: int = 2, span: int = 1000) -> Curve:
    """A line down to zero for each group."""
    steps = tuple(range(0, span + 1, span // 20))
    return Curve(
        150,
        span,
        "stays",
        tuple(
            GroupCurve((index,), steps, tuple(1e-3 / (index + 1) * (1 - s / span) for s in steps))
            for index in range(groups)
        ),
    )


def extremes() -> Statistics:
    """The least and the largest values that a float64 can have, and a norm beyond it."""
    wide = values(1e308, lowest_exponent=-1074, exponents=(1,) * 2098)
    endless = values(float("inf"), lowest_exponent=1023, exponents=(5,))
    tiny = values(5e-324, lowest_exponent=-1074, exponents=(9,))
    every = zip((wide, endless, tiny), range(3), strict=True)
    return statistics(tensor(f"h.{layer}.w", "weight", found) for found, layer in every)


def odd_rates() -> Curve:
    """Learning rates that are none."""
    rates = (float("nan"), float("inf"), None, -1e-3, 1e308)
    return Curve(0, 4, "stays", (GroupCurve((0,), (0, 1, 2, 3, 4), rates),))


def with_curve(found: Curve) -> Summary:
    """A checkpoint with that curve."""
    scheduler = SchedulerSummary("", "StepLR", 0, None, {}, (), found)
    (optimizer,) = summary().optimizers
    return summary(optimizers=(replace(optimizer, schedulers=(scheduler,)),))


def summary(name: str = "a.ckpt", **changes: Any) -> Summary:
    """An AdamW checkpoint with two groups and a scheduler."""
    group = GroupSummary(3, 300, ("float32",), 2400, {"lr": 1e-3, "betas": [0.9, 0.999], name: 1})
    scheduler = SchedulerSummary(name, name, 150, 1000.0, {"base_lrs": [1e-3]}, (), curve())
    optimizer = OptimizerSummary(
        name, "AdamW", False, (group, group), 0, 2400, 2400, 1200, (scheduler,), (f"{name} wins",)
    )
    file = FileSummary("", "torch zip", 4000, 7, 700, 2800, {"float32": 2800})
    given = {
        "path": f"run/{name}", "is_folder": False, "file_count": 1, "bytes": 4000,
        "framework": "plain", "no_optimizer": None, "step": 150, "epoch": 3.0, "facts": {name: 1},
        "optimizers": (optimizer,), "schedulers": (), "files": (file,),
    }  # fmt: skip
    return Summary(**{**given, **changes})


class Block(nn.Module):
    """A part of every layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """A residual step."""
        return x + self.down(torch.relu(self.up(self.norm(x))))


def checkpoint(path: Path, layers: int = 4) -> Path:
    """AdamW with two groups and a cosine with warmup, after 30 steps."""
    torch.manual_seed(0)
    blocks = nn.ModuleList(Block(8) for _ in range(layers))
    model = nn.ModuleDict({"embed": nn.Linear(8, 8), "layers": blocks})
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.dim() > 1], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in named if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 400)
    for _ in range(30):
        x = model["embed"](torch.randn(16, 8))
        for block in blocks:
            x = block(x)
        optimizer.zero_grad()
        x.square().mean().backward()
        optimizer.step()
        scheduler.step()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    return path

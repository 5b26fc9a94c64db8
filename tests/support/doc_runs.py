"""The checkpoint and the run that the screens in the documentation show."""

from __future__ import annotations

import random
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from liontool.resume import Run

_SCHEDULERS = torch.optim.lr_scheduler
_NOON = 1795262400.0  # 2026-11-21 12:00 UTC


def adamw_checkpoint(path: Path) -> Path:
    """60 steps of AdamW on a small network: warm-up for 100 steps, then a cosine of 900."""
    model, optimizer, scheduler = _parts()
    for _ in range(60):
        _step(model, optimizer, scheduler)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    return path


def adamw_run(folder: Path) -> Path:
    """The same as a run, saved every 10 steps; then a bit flips in the newest checkpoint."""
    random.seed(0)
    np.random.seed(0)
    model, optimizer, scheduler = _parts()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    kept = {"save_every": "1h", "keep": {"last": 6}, "say": lambda line: None}
    with (
        mock.patch("liontool.resume.writing.time.time", return_value=_NOON),
        Run(folder, **parts, steps=60, **kept) as run,
    ):
        for batch in run:
            _step(model, optimizer, scheduler)
            run.step(metric=1 / (batch + 2))
            if run.step_count % 10 == 0:
                run.save()
    _flip_a_bit(folder / "step-0000000060" / "state-0.safetensors")
    return folder


def _parts() -> tuple[torch.nn.Module, torch.optim.Optimizer, _SCHEDULERS.LRScheduler]:
    torch.manual_seed(0)
    layers = (torch.nn.Linear(64, 64) for _ in range(4))
    model = torch.nn.Sequential(*layers)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() == 1]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.1)
    warm_up = _SCHEDULERS.LinearLR(optimizer, 0.01, total_iters=100)
    decay = _SCHEDULERS.CosineAnnealingLR(optimizer, 900, eta_min=3e-5)
    scheduler = _SCHEDULERS.SequentialLR(optimizer, [warm_up, decay], [100])
    return model, optimizer, scheduler


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    scheduler: _SCHEDULERS.LRScheduler,
) -> None:
    optimizer.zero_grad()
    model(torch.randn(8, 64)).square().mean().backward()
    optimizer.step()
    scheduler.step()


def _flip_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)

"""The checkpoint that the screens in the documentation show."""

from __future__ import annotations

from pathlib import Path

import torch

_SCHEDULERS = torch.optim.lr_scheduler


def adamw_checkpoint(path: Path) -> Path:
    """60 steps of AdamW on a small network: warm-up for 100 steps, then a cosine of 900."""
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
    for _ in range(60):
        optimizer.zero_grad()
        model(torch.randn(8, 64)).square().mean().backward()
        optimizer.step()
        scheduler.step()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    return path

"""A small run, saved."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch


class Tied(torch.nn.Module):
    """Blocks with numbers in their names, and an output that shares its weight with the input."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(10, 4)
        self.h = torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in range(11))
        self.head = torch.nn.Linear(4, 10, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x = self.wte(tokens)
        for block in self.h:
            x = x + block(x)
        return self.head(x)


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 steps of AdamW with two groups of named parameters, and a schedule."""
    torch.manual_seed(0)
    model = Tied()
    named = list(model.named_parameters())
    groups = [
        {"params": [(n, p) for n, p in named if p.dim() > 1], "weight_decay": 0.1},
        {"params": [(n, p) for n, p in named if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=3e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 200)
    for _ in range(120):
        tokens = torch.randint(0, 10, (32,))
        loss = torch.nn.functional.cross_entropy(model(tokens), torch.randint(0, 10, (32,)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    path = tmp_path_factory.mktemp("run") / "run.pt"
    state = {name: part.state_dict() for name, part in parts.items()}
    torch.save({**state, "step": 120, "epoch": 3}, path)
    return path

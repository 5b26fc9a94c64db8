"""Lion and LionSF in a plain training loop that is saved and goes on.

    python examples/plain_loop.py

Against AdamW, Lion wants an lr 3 to 10 times smaller and a weight decay as much larger. Norms and
biases are not decayed. Lion goes with a cosine schedule, LionSF with a constant lr.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from liontool.optim import Lion, LionSF

STEPS, SAVED_AT = 200, 100
LR, WEIGHT_DECAY = 1e-3, 0.5  # where AdamW had 5e-3 and 0.1


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1))


def groups(model: nn.Module) -> list[dict]:
    """Matrices are decayed, norms and biases are not."""
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def loss_at(model: nn.Module, step: int) -> Tensor:
    """The loss on the batch of a step, which is the same in every run."""
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
    return nn.functional.mse_loss(model(inputs), inputs[:, :4].sin().sum(1, keepdim=True))


def train(
    model: nn.Module, optimizer: Optimizer, scheduler: LRScheduler | None, steps: range
) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_at(model, step).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def start() -> tuple[nn.Module, Lion, LRScheduler]:
    model = network()
    optimizer = Lion(groups(model), lr=LR, weight_decay=WEIGHT_DECAY)
    return model, optimizer, CosineAnnealingLR(optimizer, T_max=STEPS)


def main(folder: Path) -> None:
    model, optimizer, scheduler = run = start()
    before = loss_at(model, STEPS).item()
    train(*run, range(SAVED_AT))
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
    }
    torch.save(state, folder / "lion.pt")
    train(*run, range(SAVED_AT, STEPS))
    print(f"Lion, cosine schedule: loss {before:.4f} -> {loss_at(model, STEPS).item():.4f}")

    resumed, optimizer, scheduler = run = start()
    state = torch.load(folder / "lion.pt")
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    train(*run, range(SAVED_AT, STEPS))
    same = all(map(torch.equal, resumed.parameters(), model.parameters()))
    print(f"resumed at step {SAVED_AT}, the same weights: {same}")

    model = network()
    train(model, LionSF(groups(model), lr=LR, weight_decay=WEIGHT_DECAY), None, range(STEPS))
    print(f"LionSF, constant lr: loss {before:.4f} -> {loss_at(model, STEPS).item():.4f}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

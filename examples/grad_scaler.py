"""Lion under float16 autocast with torch's GradScaler, which skips steps with infinite gradients.

    python examples/grad_scaler.py

A skipped step changes neither weights nor momentum, and is not counted. The state of the scaler
belongs in the checkpoint beside the optimizer's. Runs on CUDA if there is any, else on the CPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from liontool.optim import Lion

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
STEPS, BROKEN, SAVED_AT = 120, 40, 60


def start() -> tuple[nn.Module, Lion, GradScaler]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 1)).to(DEVICE)
    matrices, biases = [model[0].weight, model[2].weight], [model[0].bias, model[2].bias]
    groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
    optimizer = Lion(groups, lr=1e-3, weight_decay=0.5)  # where AdamW had 5e-3 and 0.1
    return model, optimizer, GradScaler(DEVICE)


def loss_at(model: nn.Module, step: int) -> Tensor:
    """The loss on the batch of a step: the forward pass in float16, the weights in float32."""
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(step)).to(DEVICE)
    with torch.autocast(DEVICE, dtype=torch.float16):
        outputs = model(inputs)
    return nn.functional.mse_loss(outputs.float(), inputs[:, :4].sin().sum(1, keepdim=True))


def train(model: nn.Module, optimizer: Lion, scaler: GradScaler, steps: range) -> None:
    for step in steps:
        weight, scale = model[0].weight.clone(), scaler.get_scale()
        optimizer.zero_grad()
        loss = loss_at(model, step)
        scaler.scale(loss * torch.inf if step == BROKEN else loss).backward()
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() < scale:
            same = torch.equal(weight, model[0].weight)
            print(f"step {step} skipped at loss scale {scale:.0f}, the same weights: {same}")


def main(folder: Path) -> None:
    model, optimizer, scaler = run = start()
    before = loss_at(model, STEPS).item()
    train(*run, range(SAVED_AT))
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    torch.save(state, folder / "lion.pt")
    train(*run, range(SAVED_AT, STEPS))
    print(f"loss {before:.4f} -> {loss_at(model, STEPS).item():.4f}")
    print(f"steps counted: {int(optimizer.param_groups[0]['step'])} of {STEPS}")

    resumed, optimizer, scaler = run = start()
    state = torch.load(folder / "lion.pt")
    resumed.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    scaler.load_state_dict(state["scaler"])
    train(*run, range(SAVED_AT, STEPS))
    same = all(map(torch.equal, resumed.parameters(), model.parameters()))
    print(f"resumed at step {SAVED_AT}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

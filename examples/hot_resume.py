"""A training that can be killed at any moment and started again, with liontool.resume.Run.

    python examples/hot_resume.py

`train` does not know whether it is called for the first time. Here it runs once to its end, and
once more in a process that is killed without a warning, and is called again.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import Dataset
from torchdata.stateful_dataloader import StatefulDataLoader

from liontool.optim import Lion
from liontool.resume import Run, SampleSeeded

PASSES, SAMPLES, BATCH = 20, 320, 32
STEPS = PASSES * SAMPLES // BATCH
LR, WEIGHT_DECAY = 2e-3, 0.5  # where AdamW had 1e-2 and 0.1


class Noisy(Dataset):
    """Samples that are never the same twice: each gets noise when it is read."""

    def __init__(self) -> None:
        self.inputs = torch.randn(SAMPLES, 16, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        inputs = self.inputs[index]
        return inputs + 0.1 * torch.randn(16), inputs[:4].sin().sum(0, keepdim=True)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.GELU(), nn.Dropout(0.1), nn.Linear(64, 1))


def train(folder: Path, pause: float = 0) -> nn.Module:
    """Train to the end, from wherever the run in `folder` is."""
    model = network()
    matrices, biases = [model[0].weight, model[3].weight], [model[0].bias, model[3].bias]
    groups = [{"params": matrices}, {"params": biases, "weight_decay": 0.0}]
    optimizer = Lion(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    scheduler = CosineAnnealingLR(optimizer, T_max=STEPS)
    loader = StatefulDataLoader(SampleSeeded(Noisy()), batch_size=BATCH, shuffle=True)
    run = Run(
        folder,
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        loader=loader,
        epochs=PASSES,
        save_every=10,  # steps; a time such as "60s" is the better choice where a run takes hours
    )
    while not run.finished:
        for inputs, targets in run:
            nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
            run.step()
            time.sleep(pause)  # or the kill below would come too late
    run.close()
    return model


def kill_in_the_middle(folder: Path) -> None:
    """Call `train` in a process of its own, and kill that when it has saved a few times."""
    process = multiprocessing.get_context("spawn").Process(target=train, args=(folder, 0.01))
    process.start()
    while process.is_alive() and len(list(folder.glob("step-*"))) < 3:
        time.sleep(0.01)
    process.kill()  # SIGKILL
    process.join()


def loss(model: nn.Module) -> float:
    inputs = Noisy().inputs
    targets = inputs[:, :4].sin().sum(1, keepdim=True)
    with torch.no_grad():
        return nn.functional.mse_loss(model.eval()(inputs), targets).item()


def main(folder: Path) -> None:
    whole = train(folder / "whole")
    print(f"never interrupted: loss {loss(network()):.4f} -> {loss(whole):.4f}")
    kill_in_the_middle(folder / "killed")
    saved = max(path.name for path in (folder / "killed").glob("step-*"))
    killed = train(folder / "killed")
    same = all(map(torch.equal, killed.parameters(), whole.parameters()))
    print(f"resumed at step {int(saved.removeprefix('step-'))}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

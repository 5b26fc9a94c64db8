"""Lion in a loop of Accelerate that accumulates gradients, and is saved and goes on.

    python examples/accelerate_loop.py
    accelerate launch examples/accelerate_loop.py

Accelerate lets optimizer and schedule step once in two batches, and `save_state` and `load_state`
keep both.
"""

from __future__ import annotations

import tempfile

import torch
from accelerate import Accelerator
from accelerate.utils import DataLoaderConfiguration, broadcast_object_list
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from liontool.optim import Lion

EPOCHS, SAVED_AFTER, BATCHES = 12, 6, 20
LR, WEIGHT_DECAY = 1e-3, 0.5  # where AdamW had 5e-3 and 0.1

accelerator = Accelerator(
    gradient_accumulation_steps=2,
    dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True),
)


def data() -> TensorDataset:
    inputs = torch.randn(64 * BATCHES, 16, generator=torch.Generator().manual_seed(0))
    return TensorDataset(inputs, inputs[:, :4].sin().sum(1, keepdim=True))


def start() -> tuple:
    """Network, Lion, batches and schedule, as Accelerate wants them."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1))
    # Norms and biases are not decayed.
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = Lion(groups, lr=LR, weight_decay=WEIGHT_DECAY)
    scheduler = CosineAnnealingLR(optimizer, T_max=EPOCHS * BATCHES // 2)
    batches = DataLoader(data(), batch_size=64, shuffle=True)
    return accelerator.prepare(model, optimizer, batches, scheduler)


def train(run: tuple, epochs: range) -> None:
    model, optimizer, batches, scheduler = run
    for epoch in epochs:
        batches.set_epoch(epoch)  # of which the order of the batches is a function
        for inputs, targets in batches:
            with accelerator.accumulate(model):
                accelerator.backward(nn.functional.mse_loss(model(inputs), targets))
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()


def loss(model: nn.Module) -> float:
    inputs, targets = (tensor.to(accelerator.device) for tensor in data().tensors)
    with torch.no_grad():
        return nn.functional.mse_loss(model(inputs), targets).item()


def main(folder: str) -> None:
    run = start()
    before = loss(run[0])
    train(run, range(SAVED_AFTER))
    accelerator.save_state(folder)
    train(run, range(SAVED_AFTER, EPOCHS))
    accelerator.print(f"loss {before:.4f} -> {loss(run[0]):.4f}")

    accelerator.free_memory()  # else load_state would load into the first run
    resumed = start()
    accelerator.load_state(folder)
    train(resumed, range(SAVED_AFTER, EPOCHS))
    same = all(map(torch.equal, resumed[0].parameters(), run[0].parameters()))
    accelerator.print(f"resumed after epoch {SAVED_AFTER}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as own:
        main(broadcast_object_list([own])[0])
        accelerator.wait_for_everyone()
    accelerator.end_training()

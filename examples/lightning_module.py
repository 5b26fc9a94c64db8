"""Lion in a LightningModule, saved by a callback and resumed by its Trainer.

    python examples/lightning_module.py

`configure_optimizers` returns Lion and a schedule by steps. Lightning's checkpoint holds both, so
that `ckpt_path` goes on as if nothing had happened.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from liontool.optim import Lion

STEPS, SAVED_AT = 120, 60
LR, WEIGHT_DECAY = 1e-3, 0.5  # where AdamW had 5e-3 and 0.1


class Net(LightningModule):
    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        layers = nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1)
        self.body = nn.Sequential(*layers)

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        inputs, targets = batch
        return nn.functional.mse_loss(self.body(inputs), targets)

    def configure_optimizers(self) -> dict:
        # Norms and biases are not decayed.
        matrices = [param for param in self.parameters() if param.ndim >= 2]
        vectors = [param for param in self.parameters() if param.ndim < 2]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
        optimizer = Lion(groups, lr=LR, weight_decay=WEIGHT_DECAY)
        schedule = {"scheduler": CosineAnnealingLR(optimizer, T_max=STEPS), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": schedule}


def batches() -> DataLoader:
    inputs = torch.randn(1280, 16, generator=torch.Generator().manual_seed(0))
    targets = inputs[:, :4].sin().sum(1, keepdim=True)
    return DataLoader(TensorDataset(inputs, targets), batch_size=64)


def trainer(folder: Path) -> Trainer:
    saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=SAVED_AT, save_top_k=-1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(max_steps=STEPS, devices=1, callbacks=[saver], **quiet)


def loss(net: Net) -> float:
    with torch.no_grad():
        return net.training_step(batches().dataset.tensors, 0).item()


def main(folder: Path) -> None:
    net = Net(seed=0)
    before = loss(net)
    trainer(folder).fit(net, batches())
    print(f"loss {before:.4f} -> {loss(net):.4f}")

    resumed = Net(seed=1)  # the checkpoint replaces its weights
    trainer(folder).fit(resumed, batches(), ckpt_path=str(folder / f"step={SAVED_AT}.ckpt"))
    same = all(map(torch.equal, resumed.parameters(), net.parameters()))
    print(f"resumed at step {SAVED_AT}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

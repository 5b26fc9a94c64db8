"""A small network under the real lightning.Trainer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    OneCycleLR,
    SequentialLR,
)
from torch.utils.data import DataLoader, TensorDataset

from support.runs import Recording

STEPS, SAVED_AT = 38, 12
LR = 1e-3


def one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return OneCycleLR(optimizer, max_lr=LR, total_steps=STEPS + 2)


def cosine(optimizer: torch.optim.Optimizer) -> Any:
    """T_max is passed at step 15: from there on only `eta_min` and `base_lrs` tell the rate."""
    return CosineAnnealingLR(optimizer, T_max=15, eta_min=1e-5)


def sequential(optimizer: torch.optim.Optimizer) -> Any:
    warm_up = LinearLR(optimizer, start_factor=0.1, total_iters=5)
    decay = CosineAnnealingLR(optimizer, T_max=12, eta_min=2e-5)
    return SequentialLR(optimizer, [warm_up, decay], milestones=[5])


SCHEDULES: dict[str, Callable[[torch.optim.Optimizer], Any]] = {
    "one_cycle": one_cycle,
    "cosine": cosine,
    "sequential": sequential,
}


class Net(lightning.LightningModule):
    """Two layers in two groups; `make` gives the optimizer, `schedule` its scheduler."""

    def __init__(
        self,
        make: Callable[[Any], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer], Any] | None,
        seed: int,
        hyper: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(hyper or {})
        torch.manual_seed(seed)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2)
        )
        self._make, self.schedule = make, schedule

    def training_step(self, batch, index):
        inputs, targets = batch
        return torch.nn.functional.mse_loss(self.body(inputs), targets)

    def configure_optimizers(self):
        optimizer = self._make(groups(self))
        return optimizer if self.schedule is None else with_schedule(self, optimizer)


def groups(net: Net) -> list[dict[str, Any]]:
    """With and without weight decay."""
    first, last = net.body[0], net.body[2]
    return [{"params": first.parameters()}, {"params": last.parameters(), "weight_decay": 0.0}]


def with_schedule(net: Net, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """What `configure_optimizers` returns for a schedule by steps."""
    schedule = {"scheduler": net.schedule(optimizer), "interval": "step"}
    return {"optimizer": optimizer, "lr_scheduler": schedule}


class TwoNets(lightning.LightningModule):
    """Two networks with an optimizer and a schedule each, stepped by hand; the schedules differ."""

    def __init__(self, make: Callable[..., torch.optim.Optimizer]) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.first, self.second = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
        self._make = make
        self.rates: list[list[float]] = []

    def training_step(self, batch, index):
        inputs, targets = batch
        optimizers = self.optimizers()
        self.rates.append([one.param_groups[0]["lr"] for one in optimizers])
        nets = (self.first, self.second)
        for net, optimizer, schedule in zip(nets, optimizers, self.lr_schedulers(), strict=True):
            optimizer.zero_grad()
            self.manual_backward(torch.nn.functional.mse_loss(net(inputs), targets))
            optimizer.step()
            schedule.step()

    def configure_optimizers(self):
        first = self._make(self.first.parameters(), lr=LR)
        second = self._make(self.second.parameters(), lr=3 * LR)
        return [first, second], [sequential(first), cosine(second)]


class Recorder(lightning.Callback):
    """Notes the learning rates, and weights and momenta at SAVED_AT steps."""

    def __init__(self) -> None:
        self.seen = Recording()

    def on_train_start(self, trainer, module):
        self.seen.first_step = trainer.global_step
        if trainer.global_step == SAVED_AT:
            self.seen.moment(module, trainer.optimizers[0])

    def on_train_batch_start(self, trainer, module, batch, index):
        self.seen.step(trainer.optimizers[0])

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        self.seen.losses += [float(loss) for loss in (outputs or {}).values()]
        self.seen.last_step = trainer.global_step
        if trainer.global_step == SAVED_AT:
            self.seen.moment(module, trainer.optimizers[0])


def data() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    inputs, targets = (torch.randn(200, n, generator=generator) for n in (4, 2))
    return DataLoader(TensorDataset(inputs, targets), batch_size=4)


def trainer(folder: Path) -> tuple[Recorder, lightning.Trainer]:
    """A trainer that goes to STEPS and saves at SAVED_AT."""
    recorder = Recorder()
    saver = ModelCheckpoint(folder, "{step}", every_n_train_steps=SAVED_AT, save_top_k=-1)
    return recorder, lightning.Trainer(
        max_steps=STEPS,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[recorder, saver],
    )


def fit(folder: Path, net: Net, checkpoint: Path | None = None, **options: Any) -> Recording:
    """Train to STEPS, from the start or from a checkpoint."""
    recorder, runner = trainer(folder)
    path = None if checkpoint is None else str(checkpoint)
    runner.fit(net, data(), ckpt_path=path, **options)
    return recorder.seen


def train_adamw(
    folder: Path, schedule: str, hyper: dict[str, Any] | None = None
) -> tuple[Path, Recording]:
    """An uninterrupted run; its checkpoint and what it showed."""
    net = Net(
        lambda groups: torch.optim.AdamW(groups, lr=LR, weight_decay=0.1),
        SCHEDULES[schedule],
        0,
        hyper,
    )
    return folder / f"step={SAVED_AT}.ckpt", fit(folder, net)


def resume(
    checkpoint: Path,
    optimizer_class: type,
    schedule: str | None,
    hyper: dict[str, Any] | None = None,
    **options: Any,
) -> Recording:
    """Go on from `checkpoint` with another optimizer, as Lightning itself resumes."""
    net = Net(
        lambda groups: optimizer_class(groups, lr=LR),
        None if schedule is None else SCHEDULES[schedule],
        1,
        hyper,
    )
    return fit(checkpoint.parent / "resumed", net, checkpoint, **options)

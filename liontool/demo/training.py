"""The runs of the demo: AdamW up to the switch, and one of three optimizers after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LinearLR, LRScheduler, SequentialLR

from liontool.demo import RunResult, corpus
from liontool.demo.gpt import GPT
from liontool.optim import Lion, LionSF

STEPS_BEFORE = 400
STEPS_AFTER = 300
_WARMUP = 50
_LENGTH = 96
_SEQUENCES = 16
_SEED = 1337

# Lion takes lr, betas and weight decay from the converted file, as AdamW does from its own.
_OPTIMIZERS: dict[str, Callable[[Iterable[Tensor]], Optimizer]] = {
    "AdamW": lambda parameters: AdamW(parameters, lr=2e-3, weight_decay=0.1),
    "Lion": Lion,
    "LionSF": LionSF,
}


@dataclass(frozen=True)
class Training:
    """A training that can take its next step; `step` is the number of those before it was made."""

    model: GPT
    optimizer: Optimizer
    scheduler: LRScheduler
    step: int


def pretrain(checkpoint: Path) -> tuple[tuple[float, ...], float]:
    """Train with AdamW and save; returns the loss of every step, and the validation loss."""
    torch.manual_seed(_SEED)
    training = _build("AdamW", 0)
    train, validation = corpus.load()
    losses = _train(training, train, STEPS_BEFORE)
    torch.save(
        {
            "model": training.model.state_dict(),
            "optimizer": training.optimizer.state_dict(),
            "scheduler": training.scheduler.state_dict(),
            "step": STEPS_BEFORE,
        },
        checkpoint,
    )
    return losses, _validate(training.model, validation)


def load(name: str, checkpoint: Path) -> Training:
    """What stands in `checkpoint`, for the optimizer `name`."""
    saved = torch.load(checkpoint, weights_only=True)
    training = _build(name, saved["step"])
    training.model.load_state_dict(saved["model"])
    training.optimizer.load_state_dict(saved["optimizer"])
    training.scheduler.load_state_dict(saved["scheduler"])
    return training


def resume(name: str, checkpoint: Path) -> RunResult:
    """Go on from `checkpoint` with the optimizer `name`, over the batches that come next."""
    training = load(name, checkpoint)
    train, validation = corpus.load()
    losses = _train(training, train, STEPS_AFTER)
    validation_loss = _validate(training.model, validation)
    return RunResult(name, losses, validation_loss, _state_bytes(training.optimizer))


def one_step(training: Training, data: Tensor, step: int) -> float:
    """Train on the batch of a step; returns its loss."""
    loss = training.model(corpus.batch(data, step, sequences=_SEQUENCES, length=_LENGTH))
    loss.backward()
    torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
    training.optimizer.step()
    training.scheduler.step()
    training.optimizer.zero_grad()
    value: float = loss.item()
    return value


def _build(name: str, step: int) -> Training:
    # Matrices this small gain little from a second thread, and lose all where other work waits.
    torch.set_num_threads(1)
    model = GPT(length=_LENGTH)
    optimizer = _OPTIMIZERS[name](model.parameters())
    return Training(model, optimizer, _schedule(optimizer), step)


def _schedule(optimizer: Optimizer) -> LRScheduler:
    """A warm-up, then a cosine down to a tenth at the end of the whole run."""
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=_WARMUP)
    rest = STEPS_BEFORE + STEPS_AFTER - _WARMUP
    cosine = CosineAnnealingLR(optimizer, T_max=rest, eta_min=2e-4)
    return SequentialLR(optimizer, [warmup, cosine], milestones=[_WARMUP])


def _train(training: Training, data: Tensor, steps: int) -> tuple[float, ...]:
    first = training.step
    return tuple(one_step(training, data, step) for step in range(first, first + steps))


@torch.no_grad()
def _validate(model: GPT, data: Tensor) -> float:
    losses = [
        model(corpus.batch(data, -1 - i, sequences=_SEQUENCES, length=_LENGTH)).item()
        for i in range(16)
    ]
    return fmean(losses)


def _state_bytes(optimizer: Optimizer) -> int:
    return sum(
        value.nbytes
        for state in optimizer.state.values()
        for value in state.values()
        if isinstance(value, Tensor)
    )

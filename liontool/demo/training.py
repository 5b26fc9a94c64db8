"""The runs of the demo: AdamW up to the switch, and one of three optimizers after it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
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


def pretrain(checkpoint: Path) -> tuple[tuple[float, ...], float]:
    """Train with AdamW and save; returns the loss of every step, and the validation loss."""
    torch.manual_seed(_SEED)
    model = GPT(length=_LENGTH)
    optimizer = _OPTIMIZERS["AdamW"](model.parameters())
    scheduler = _schedule(optimizer)
    train, validation = corpus.load()
    losses = _train(model, optimizer, scheduler, train, range(STEPS_BEFORE))
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
            "step": STEPS_BEFORE,
        },
        checkpoint,
    )
    return losses, _validate(model, validation)


def resume(name: str, checkpoint: Path) -> RunResult:
    """Go on from `checkpoint` with the optimizer `name`, over the batches that come next."""
    saved = torch.load(checkpoint, weights_only=True)
    model = GPT(length=_LENGTH)
    optimizer = _OPTIMIZERS[name](model.parameters())
    scheduler = _schedule(optimizer)
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    scheduler.load_state_dict(saved["scheduler"])
    train, validation = corpus.load()
    steps = range(saved["step"], saved["step"] + STEPS_AFTER)
    losses = _train(model, optimizer, scheduler, train, steps)
    return RunResult(name, losses, _validate(model, validation), _state_bytes(optimizer))


def _schedule(optimizer: Optimizer) -> LRScheduler:
    """A warm-up, then a cosine down to a tenth at the end of the whole run."""
    warmup = LinearLR(optimizer, start_factor=0.01, total_iters=_WARMUP)
    rest = STEPS_BEFORE + STEPS_AFTER - _WARMUP
    cosine = CosineAnnealingLR(optimizer, T_max=rest, eta_min=2e-4)
    return SequentialLR(optimizer, [warmup, cosine], milestones=[_WARMUP])


def _train(
    model: GPT, optimizer: Optimizer, scheduler: LRScheduler, data: Tensor, steps: range
) -> tuple[float, ...]:
    # Matrices this small gain little from a second thread, and lose all where other work waits.
    torch.set_num_threads(1)
    losses = []
    for step in steps:
        loss = model(corpus.batch(data, step, sequences=_SEQUENCES, length=_LENGTH))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return tuple(losses)


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

"""A tiny GPT-2 under the real transformers.Trainer; random weights, no network, no tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)

from support.runs import Recording

STEPS, SAVED_AT = 14, 6
LR = 1e-3

SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {"lr_scheduler_type": "linear", "warmup_steps": 2},
    "cosine": {"lr_scheduler_type": "cosine", "warmup_steps": 8},
    "cosine_with_min_lr": {
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr": 1e-4},
        "warmup_steps": 2,
    },
}


class Recorder(TrainerCallback):
    """Notes the learning rates, and weights and momenta at `moment` steps."""

    def __init__(self, moment: int) -> None:
        self.seen = Recording()
        self._moment = moment

    def on_train_begin(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.seen.first_step = state.global_step
        if state.global_step == self._moment:
            self.seen.moment(model, optimizer)

    def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
        self.seen.step(optimizer)

    def on_step_end(self, args, state, control, model=None, optimizer=None, **kwargs):
        self.seen.last_step = state.global_step
        if state.global_step == self._moment:
            self.seen.moment(model, optimizer)

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" in logs:
            self.seen.losses.append(float(logs["loss"]))


def tiny_model(seed: int) -> GPT2LMHeadModel:
    """Two layers; the head is tied to the embedding."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=64, n_positions=8, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config)


def dataset() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(0, 64, (48, 8), generator=generator)
    return [{"input_ids": row, "labels": row} for row in tokens]


def arguments(folder: Path, **options: Any) -> TrainingArguments:
    defaults: dict[str, Any] = {
        "max_steps": STEPS,
        "save_steps": SAVED_AT,
        "per_device_train_batch_size": 4,
        "learning_rate": LR,
        "weight_decay": 0.1,
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return TrainingArguments(str(folder), **{**defaults, **options})


def train_adamw(folder: Path, **options: Any) -> tuple[Path, Recording]:
    """An uninterrupted run; its checkpoint and what it showed."""
    recorder = Recorder(SAVED_AT)
    trainer = Trainer(
        tiny_model(0),
        arguments(folder, **options),
        train_dataset=dataset(),
        eval_dataset=dataset()[:4],
        callbacks=[recorder],
    )
    trainer.train()
    return folder / f"checkpoint-{SAVED_AT}", recorder.seen


def resume(checkpoint: Path, optimizer_class: type, **options: Any) -> Recording:
    """Go on from `checkpoint` with another optimizer, as Trainer itself resumes."""
    recorder = Recorder(SAVED_AT)
    lr = options.pop("constructor_lr", LR)
    trainer = Trainer(
        tiny_model(1),
        arguments(checkpoint.parent / "resumed", **options),
        train_dataset=dataset(),
        eval_dataset=dataset()[:4],
        callbacks=[recorder],
        optimizer_cls_and_kwargs=(optimizer_class, {"lr": lr}),
    )
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return recorder.seen

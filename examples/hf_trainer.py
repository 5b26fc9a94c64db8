"""Lion in the Trainer of transformers, which saves and resumes it.

    python examples/hf_trainer.py

Trainer takes the optimizer and its schedule as they are. Its checkpoint holds both, so that
`resume_from_checkpoint` goes on as if nothing had happened.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainingArguments,
    get_cosine_schedule_with_warmup,
    set_seed,
)

from liontool.optim import Lion

STEPS, SAVED_AT = 120, 60
LR, WEIGHT_DECAY = 2e-3, 0.5  # where AdamW had 1e-2 and 0.1


def network(seed: int) -> GPT2LMHeadModel:
    set_seed(seed)
    tokens = {"vocab_size": 32, "n_positions": 16, "bos_token_id": 0, "eos_token_id": 0}
    return GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=2, **tokens))


def counting() -> list[dict]:
    """Texts that count up from anywhere, modulo the size of the vocabulary."""
    texts = [torch.arange(first, first + 16) % 32 for first in range(32)]
    return [{"input_ids": text, "labels": text} for text in texts]


def groups(model: nn.Module) -> list[dict]:
    """Matrices are decayed, norms and biases are not."""
    matrices = [param for param in model.parameters() if param.ndim >= 2]
    vectors = [param for param in model.parameters() if param.ndim < 2]
    return [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]


def trainer(folder: Path, seed: int) -> Trainer:
    model = network(seed)
    optimizer = Lion(groups(model), lr=LR, weight_decay=WEIGHT_DECAY)
    scheduler = get_cosine_schedule_with_warmup(optimizer, 5, STEPS)
    arguments = TrainingArguments(
        str(folder),
        max_steps=STEPS,
        save_steps=SAVED_AT,
        per_device_train_batch_size=8,
        dataloader_pin_memory=torch.cuda.is_available(),
        logging_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    return Trainer(
        model,
        arguments,
        train_dataset=counting(),
        eval_dataset=counting(),
        optimizers=(optimizer, scheduler),
    )


def main(folder: Path) -> None:
    run = trainer(folder, seed=0)
    before = run.evaluate()["eval_loss"]
    run.train()
    print(f"loss {before:.4f} -> {run.evaluate()['eval_loss']:.4f}")

    resumed = trainer(folder, seed=1)  # the checkpoint replaces its weights
    resumed.train(resume_from_checkpoint=str(folder / f"checkpoint-{SAVED_AT}"))
    same = all(map(torch.equal, resumed.model.parameters(), run.model.parameters()))
    print(f"resumed at step {SAVED_AT}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

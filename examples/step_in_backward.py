"""Lion that steps inside backward, so that one gradient is alive at a time.

    python examples/step_in_backward.py

Each parameter has an optimizer of its own; a hook calls it as soon as the gradient is complete, and
then lets the gradient go. The weights are those of one Lion over all parameters, bit for bit, but
for `rounding="stochastic"`, which rounds by other chance. What needs all gradients at once is not
to be had: `global_clipnorm` (`clipnorm` is), LionSF's `agreement="group"` and `"group_signed"`, and
leaving out a whole step, by GradScaler, `nonfinite="skip"` or `"raise"`.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from liontool.optim import Lion

STEPS, SAVED_AT = 120, 60
LR, WEIGHT_DECAY = 1e-3, 0.5  # where AdamW had 5e-3 and 0.1

gradients: list[int] = []  # how many there are whenever a parameter steps; only for show


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 1))


def loss_at(model: nn.Module, step: int) -> Tensor:
    """The loss on the batch of a step, which is the same in every run."""
    inputs = torch.randn(64, 16, generator=torch.Generator().manual_seed(step))
    return nn.functional.mse_loss(model(inputs), inputs[:, :4].sin().sum(1, keepdim=True))


def step_in_backward(model: nn.Module) -> dict[str, tuple[Lion, LRScheduler]]:
    """An optimizer and its schedule for each parameter; backward of the model now steps."""
    lions = {}
    for number, (name, param) in enumerate(model.named_parameters()):
        group = {
            "params": [param],
            "weight_decay": WEIGHT_DECAY if param.ndim >= 2 else 0.0,  # not of norms and biases
            "rounding_seed": number,  # or rounding="stochastic" would round all alike
        }
        optimizer = Lion([group], lr=LR)
        lions[name] = optimizer, CosineAnnealingLR(optimizer, T_max=STEPS)
        param.register_post_accumulate_grad_hook(partial(release, model, optimizer))
    return lions


def release(model: nn.Module, optimizer: Lion, _: Tensor) -> None:
    """Step, then let the gradient go."""
    gradients.append(sum(param.grad is not None for param in model.parameters()))
    optimizer.step()
    optimizer.zero_grad()


def train(model: nn.Module, lions: dict[str, tuple[Lion, LRScheduler]], steps: range) -> None:
    for step in steps:
        loss_at(model, step).backward()
        for _, scheduler in lions.values():
            scheduler.step()


def main(folder: Path) -> None:
    model = network()
    before = loss_at(model, STEPS).item()
    lions = step_in_backward(model)
    train(model, lions, range(SAVED_AT))
    states = {name: [one.state_dict() for one in pair] for name, pair in lions.items()}
    torch.save({"model": model.state_dict(), "lions": states}, folder / "lions.pt")
    train(model, lions, range(SAVED_AT, STEPS))
    print(f"loss {before:.4f} -> {loss_at(model, STEPS).item():.4f}")
    print(f"gradients alive at once: {max(gradients)} of {len(lions)}")

    resumed = network()
    lions = step_in_backward(resumed)
    saved = torch.load(folder / "lions.pt")
    resumed.load_state_dict(saved["model"])
    for name, (optimizer, scheduler) in lions.items():
        optimizer_state, scheduler_state = saved["lions"][name]
        optimizer.load_state_dict(optimizer_state)
        scheduler.load_state_dict(scheduler_state)
    train(resumed, lions, range(SAVED_AT, STEPS))
    same = all(map(torch.equal, resumed.parameters(), model.parameters()))
    print(f"resumed at step {SAVED_AT}, the same weights: {same}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        main(Path(folder))

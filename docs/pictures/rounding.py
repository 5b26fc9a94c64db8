"""Draws rounding.png: bfloat16 weights under each rounding, beside their float32 twin.

    python docs/pictures/rounding.py

Two runs, seconds each: a small network, and weight decay alone. The tests run both and hold them
to what the page says. Needs matplotlib.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from liontool.optim import Lion
from liontool.optim.rounding import combined, split

TWIN = "float32"
LR = 1e-4
STEPS = 800
DECAY_STEPS = 2000

# Two runs lie on their twin. Each is seen in the gaps of the other.
LINES: dict[str, dict[str, Any]] = {
    TWIN: {"color": "#d1d5db", "linewidth": 7, "label": "float32 weights"},
    "nearest": {"color": "#dc2626", "label": 'bfloat16, "nearest"'},
    "stochastic": {"color": "#d97706", "linestyle": (0, (5, 5)), "label": 'bfloat16, "stochastic"'},
    "split": {"color": "#1d4ed8", "linestyle": (5, (5, 5)), "label": 'bfloat16, "split"'},
}


class Run(NamedTuple):
    """What a run leaves.

    Attributes:
        history: The loss before each step, or the weights after it.
        weights: The last weights in float32, with their residuals where there are any.
        optimizer: The optimizer after its last step.
    """

    history: list[float]
    weights: list[Tensor]
    optimizer: Lion


def train(rounding: str, steps: int = STEPS) -> Run:
    """Teach a network of two layers another network's answers.

    The network computes with bfloat16 weights in every run. In the twin's they are copies of
    float32 weights, and the optimizer moves those.

    Args:
        rounding: One of Lion's, or `TWIN`.
        steps: How many.
    """
    inputs, answers, weights = _lesson()
    visible = [weight.bfloat16().requires_grad_() for weight in weights]
    trained = [weight.detach().float() for weight in visible] if rounding == TWIN else visible
    optimizer = _optimizer(trained, rounding)
    history = []
    for _ in range(steps):
        loss = (_answers(visible, inputs) - answers).square().mean()
        history.append(loss.item())
        for weight, grad in zip(trained, torch.autograd.grad(loss, visible), strict=True):
            weight.grad = grad.to(weight.dtype)
        optimizer.step()
        if rounding == TWIN:
            _show(trained, visible)
    return Run(history, _whole(optimizer), optimizer)


def decay(rounding: str, weights: int = 1000, steps: int = DECAY_STEPS) -> Run:
    """Weight decay of 1.0 on weights of 1.0 with no gradient; the history is of their mean.

    Args:
        rounding: One of Lion's, or `TWIN`.
        weights: How many.
        steps: How many.
    """
    weight = torch.ones(weights, dtype=torch.float32 if rounding == TWIN else torch.bfloat16)
    weight.grad = torch.zeros_like(weight)
    optimizer = _optimizer([weight], rounding, weight_decay=1.0)
    history = []
    for _ in range(steps):
        optimizer.step()
        history.append(weight.double().mean().item())
    return Run(history, _whole(optimizer), optimizer)


def _lesson() -> tuple[Tensor, Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)

    def network() -> list[Tensor]:
        shapes = [(32, 64), (64, 1)]
        return [torch.randn(shape, generator=generator) / shape[0] ** 0.5 for shape in shapes]

    inputs = torch.randn(256, 32, generator=generator)
    return inputs, _answers(network(), inputs), network()


def _answers(weights: Sequence[Tensor], inputs: Tensor) -> Tensor:
    first, second = (weight.float() for weight in weights)
    return torch.tanh(inputs @ first) @ second


def _optimizer(weights: Sequence[Tensor], rounding: str, weight_decay: float = 0.0) -> Lion:
    """The momentum is float32 in all runs, so that they differ in their weights alone."""
    known = "nearest" if rounding == TWIN else rounding
    return Lion(
        list(weights), lr=LR, weight_decay=weight_decay, rounding=known, state_dtype=torch.float32
    )


def _show(trained: Sequence[Tensor], visible: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for wide, narrow in zip(trained, visible, strict=True):
            narrow.copy_(split(wide)[0])


def _whole(optimizer: Lion) -> list[Tensor]:
    wide = []
    for weight in optimizer.param_groups[0]["params"]:
        residual = optimizer.state[weight].get("residual")
        hi = weight.detach()
        wide.append(hi.float() if residual is None else combined(hi, residual))
    return wide


def draw(path: Path) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plt.rcParams["lines.linewidth"] = 2
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 4), layout="constrained")
    for rounding, line in LINES.items():
        left.semilogy(train(rounding).history, **line)
        right.plot(decay(rounding).history, **line)
    right.plot(decay("stochastic", weights=1).history, color="#d97706", linewidth=0.8)
    right.annotate('one "stochastic" weight', (1180, 0.905), color="#b45309")
    left.set(title=f"A small network, lr {LR:g}", xlabel="step", ylabel="loss")
    right.set(title=f"Weight decay alone, lr {LR:g}, weight_decay 1",
              xlabel="step", ylabel="mean of 1000 weights that were 1")  # fmt: skip
    left.legend(frameon=False, loc="lower left", handlelength=4)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(x=0.01)
    figure.savefig(path, dpi=100, pil_kwargs={"optimize": True})
    plt.close(figure)


if __name__ == "__main__":
    warnings.filterwarnings("ignore", message=".*rounded away")  # that is the picture
    draw(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_suffix(".png"))

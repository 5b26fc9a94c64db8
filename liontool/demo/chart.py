"""The losses of the demo as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from liontool.demo import RunResult

_WINDOW = 20
_COLORS = {"AdamW": "#6b7280", "Lion": "#d97706", "LionSF": "#2563eb"}


def draw(before: Sequence[float], runs: Sequence[RunResult], path: Path) -> Path | None:
    """Write a PNG of all loss curves to `path`; None where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 5), layout="constrained")
    axes.plot(*_smooth(before, 0), color=_COLORS["AdamW"], linewidth=1.5)
    switch = len(before)
    for run in runs:
        # The window reaches back over the switch, so that the curves start where AdamW's ends.
        steps, losses = _smooth([*before[-_WINDOW:], *run.losses], switch - _WINDOW)
        label = f"{run.name}: {run.validation_loss:.3f}"
        axes.plot(steps[1:], losses[1:], color=_COLORS[run.name], linewidth=1.8, label=label)
    axes.axvline(switch, color="black", linewidth=0.8, linestyle=":")
    axes.annotate("switch", (switch, 0.98), xycoords=("data", "axes fraction"),
                  xytext=(5, 0), textcoords="offset points", va="top")  # fmt: skip
    axes.set_xlabel("step")
    axes.set_ylabel(f"training loss, mean of {_WINDOW} steps (nats a byte)")
    axes.set_title("AdamW, and Lion and LionSF from its converted checkpoint")
    axes.set_ylim(top=_ceiling(before))
    axes.legend(title="validation loss at the end", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _smooth(losses: Sequence[float], start: int) -> tuple[range, list[float]]:
    means = [sum(losses[i - _WINDOW : i]) / _WINDOW for i in range(_WINDOW, len(losses) + 1)]
    return range(start + _WINDOW, start + len(losses) + 1), means


def _ceiling(losses: Sequence[float]) -> float:
    """Leaves the first steep fall out of the picture."""
    return sorted(losses)[int(len(losses) * 0.85)]

"""The losses of the demo as a picture: after the switch, and of the run that was killed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from liontool.demo import CrashResult, RunResult

_WINDOW = 20
_COLORS = {"AdamW": "#6b7280", "Lion": "#d97706", "LionSF": "#2563eb"}
_WHOLE = "#fcd9a4"
_KILLED, _WENT_ON = "#111827", "#2563eb"
_KILL = "#dc2626"


def draw(
    before: Sequence[float], runs: Sequence[RunResult], crash: CrashResult | None, path: Path
) -> Path | None:
    """Write a PNG of all loss curves to `path`; None where matplotlib is not installed."""
    try:
        import matplotlib
    except ImportError:
        return None
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    rows = 1 if crash is None else 2
    figure, axes = plt.subplots(rows, figsize=(9, 5 * rows), layout="constrained", squeeze=False)
    _draw_switch(axes[0, 0], before, runs)
    if crash is not None:
        _draw_crash(axes[1, 0], crash)
    for panel in axes[:, 0]:
        panel.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return path


def _draw_switch(axes: Any, before: Sequence[float], runs: Sequence[RunResult]) -> None:
    axes.plot(*_smooth(before, 0), color=_COLORS["AdamW"], linewidth=1.5)
    switch = len(before)
    for run in runs:
        # The window reaches back over the switch, so that the curves start where AdamW's ends.
        steps, losses = _smooth([*before[-_WINDOW:], *run.losses], switch - _WINDOW)
        label = f"{run.name}: {run.validation_loss:.3f}"
        axes.plot(steps[1:], losses[1:], color=_COLORS[run.name], linewidth=1.8, label=label)
    axes.axvline(switch, color="black", linewidth=0.8, linestyle=":")
    _note(axes, switch, "switch", "black")
    axes.set_xlabel("step")
    axes.set_ylabel(f"training loss, mean of {_WINDOW} steps (nats a byte)")
    axes.set_title("AdamW, and Lion and LionSF from its converted checkpoint")
    axes.set_ylim(top=_ceiling(before))
    axes.legend(title="validation loss at the end", frameon=False)


def _draw_crash(axes: Any, crash: CrashResult) -> None:
    """Two curves on each other: the lower one is wide and pale, or it could not be seen."""
    steps = range(1, len(crash.whole) + 1)
    axes.plot(steps, crash.whole, color=_WHOLE, linewidth=8, label="never interrupted")
    thin = {"linewidth": 1.2, "marker": ".", "markersize": 3}
    axes.plot(*zip(*crash.before, strict=True), color=_KILLED, label="killed", **thin)
    axes.plot(*zip(*crash.after, strict=True), color=_WENT_ON, label="started again", **thin)
    axes.axvline(crash.killed_at, color=_KILL, linewidth=1)
    _note(axes, crash.killed_at, f"kill -9 in a save, after step {crash.killed_at}", _KILL)
    axes.set_xlabel("step after the switch")
    axes.set_ylabel("training loss of each step (nats a byte)")
    axes.set_title(_verdict(crash))
    axes.margins(x=0.01)
    axes.legend(frameon=False, loc="lower left")


def _verdict(crash: CrashResult) -> str:
    if crash.differing:
        return f"Killed and started again: {len(crash.differing)} losses differ"
    return "Killed and started again: the same losses, to the last bit"


def _note(axes: Any, step: int, text: str, color: str) -> None:
    axes.annotate(text, (step, 0.98), xycoords=("data", "axes fraction"), color=color,
                  xytext=(5, 0), textcoords="offset points", va="top")  # fmt: skip


def _smooth(losses: Sequence[float], start: int) -> tuple[range, list[float]]:
    means = [sum(losses[i - _WINDOW : i]) / _WINDOW for i in range(_WINDOW, len(losses) + 1)]
    return range(start + _WINDOW, start + len(losses) + 1), means


def _ceiling(losses: Sequence[float]) -> float:
    """Leaves the first steep fall out of the picture."""
    return sorted(losses)[int(len(losses) * 0.85)]

"""How the demo's result is shown: one line for each run."""

from __future__ import annotations

from statistics import fmean

from liontool import wording
from liontool.cli import render
from liontool.demo import DemoResult, RunResult

_LAST = 20
"""Steps over which the training loss at the end is averaged."""


def show(result: DemoResult) -> None:
    """Print the losses of all runs side by side."""
    page = render.Page()
    page.heading("Loss after the switch, in nats a byte")
    page.table(
        ("optimizer", "steps", f"training, last {_LAST}", "validation", "optimizer memory"),
        [_row(run) for run in result.runs],
    )
    page.facts(
        {
            "validation at the switch": f"{result.validation_loss_before:.3f}",
            "picture": str(result.chart or "none, for want of matplotlib: pip install matplotlib"),
            "checkpoints": str(result.folder),
        }
    )


def _row(run: RunResult) -> tuple[str, ...]:
    return (
        run.name,
        wording.count(len(run.losses)),
        f"{fmean(run.losses[-_LAST:]):.3f}",
        f"{run.validation_loss:.3f}",
        wording.size(run.state_bytes),
    )

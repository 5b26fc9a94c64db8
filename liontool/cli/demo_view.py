"""How the demo's result is shown: one line for each run, and what the kill did to one of them."""

from __future__ import annotations

from statistics import fmean

from liontool import wording
from liontool.cli import render
from liontool.demo import CrashResult, DemoResult, RunResult

_LAST = 20
"""Steps over which the training loss at the end is averaged."""


def show(result: DemoResult) -> None:
    """Print the losses of all runs side by side, and of the one that was killed."""
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
    page.heading("Killed in the middle of a save, and started again")
    if result.crash is None:
        page.items(["not shown, for want of xxhash: pip install 'liontool[resume]'"])
    else:
        page.facts(_crash_facts(result.crash))


def _row(run: RunResult) -> tuple[str, ...]:
    return (
        run.name,
        wording.count(len(run.losses)),
        f"{fmean(run.losses[-_LAST:]):.3f}",
        f"{run.validation_loss:.3f}",
        wording.size(run.state_bytes),
    )


def _crash_facts(crash: CrashResult) -> dict[str, str]:
    again = crash.killed_at - crash.resumed_at
    return {
        "killed": f"after step {crash.killed_at}, by kill -9, when {wording.size(crash.written)} "
        "of a checkpoint were written",
        "went on": f"from step {crash.resumed_at}, the newest complete checkpoint; "
        f"{wording.count(again, 'step')} made again",
        "losses": _losses(crash),
    }


def _losses(crash: CrashResult) -> str:
    steps = len(crash.whole)
    if crash.differing:
        return (
            f"{len(crash.differing)} differ from those of the run that was never interrupted, "
            f"the first at step {crash.differing[0]}"
        )
    return (
        f"all {steps} the same, to the last bit, as those of the run that was never interrupted; "
        f"the last is {crash.after[-1][1]:.6f}"
    )

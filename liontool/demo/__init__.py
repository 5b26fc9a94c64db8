"""`liontool demo`: the main job on runs that take a good minute on two cores.

A small GPT is trained with AdamW on the sources of Python's standard library and saved. The saved
file is converted by the real command, and three runs go on from it over the same batches: AdamW as
if nothing had happened, Lion and LionSF from the converted files. Last, Lion goes on once more in a
process that is killed in the middle of a save and started again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CrashResult", "DemoResult", "RunResult", "Step", "run"]

Step = tuple[int, float]
"""Number of a step after the switch, from 1, and its training loss."""


@dataclass(frozen=True)
class RunResult:
    """One of the runs after the switch.

    Attributes:
        name: "AdamW", "Lion" or "LionSF".
        losses: Training loss of every step after the switch, nats a byte.
        validation_loss: Loss on text that was never trained on, at the end.
        state_bytes: Size of the optimizer's state.
    """

    name: str
    losses: tuple[float, ...]
    validation_loss: float
    state_bytes: int


@dataclass(frozen=True)
class CrashResult:
    """A run that was killed in the middle of a save, and went on.

    Attributes:
        whole: Loss of every step of the run that was never interrupted.
        before: Steps up to the kill.
        after: Steps after it. Those between the newest checkpoint and the kill are made again.
        written: Bytes that the save had written when the kill came.
    """

    whole: tuple[float, ...]
    before: tuple[Step, ...]
    after: tuple[Step, ...]
    written: int

    @property
    def killed_at(self) -> int:
        """The last step before the kill."""
        return self.before[-1][0]

    @property
    def resumed_at(self) -> int:
        """Step of the checkpoint that the run went on from."""
        return self.after[0][0] - 1

    @property
    def differing(self) -> tuple[int, ...]:
        """Steps whose loss is not that of the uninterrupted run, to the last bit."""
        made = [*self.before, *self.after]
        return tuple(step for step, loss in made if loss != self.whole[step - 1])


@dataclass(frozen=True)
class DemoResult:
    """All the figures, and where the files are.

    Attributes:
        folder: Holds the checkpoints and the chart.
        losses_before: Training loss of every AdamW step before the switch.
        validation_loss_before: Validation loss at the switch.
        runs: What came after the switch, AdamW first.
        crash: The run that was killed, or None where xxhash is not installed.
        chart: The picture, or None where matplotlib is not installed.
    """

    folder: Path
    losses_before: tuple[float, ...]
    validation_loss_before: float
    runs: tuple[RunResult, ...]
    crash: CrashResult | None
    chart: Path | None


def run(
    folder: Path, *, say: Callable[[str], None], command: Callable[[Sequence[str]], None]
) -> DemoResult:
    """Run the demo in `folder`.

    Args:
        folder: Where checkpoints and chart go; made if missing.
        say: Shows one line of progress.
        command: Runs `liontool` with these arguments, its output in sight; raises if it fails.
    """
    from liontool.demo import chart, training

    folder.mkdir(parents=True, exist_ok=True)
    adamw = folder / "adamw.ckpt"
    say(f"Training a small GPT with AdamW for {training.STEPS_BEFORE} steps ...")
    losses_before, validation_loss_before = training.pretrain(adamw)

    lion, lion_sf = folder / "adamw.lion.ckpt", folder / "adamw.lion-sf.ckpt"
    command(["inspect", str(adamw)])
    convert = ["convert", str(adamw), "--lr-ratio", "3", "--force"]
    command([*convert, "-o", str(lion)])
    command(["inspect", str(lion)])
    command([*convert, "-o", str(lion_sf), "--to", "lion-sf"])

    runs = {}
    for name, checkpoint in (("AdamW", adamw), ("Lion", lion), ("LionSF", lion_sf)):
        say(f"Going on with {name} for {training.STEPS_AFTER} steps from {checkpoint.name} ...")
        runs[name] = training.resume(name, checkpoint)
    killed = _crash(folder, lion, runs["Lion"], say=say, command=command)
    every = tuple(runs.values())
    picture = chart.draw(losses_before, every, killed, folder / "losses.png")
    return DemoResult(folder, losses_before, validation_loss_before, every, killed, picture)


def _crash(
    folder: Path,
    checkpoint: Path,
    whole: RunResult,
    *,
    say: Callable[[str], None],
    command: Callable[[Sequence[str]], None],
) -> CrashResult | None:
    from liontool.demo import crash

    if not crash.possible():
        return None
    return crash.kill_and_resume(folder, checkpoint, whole.losses, say=say, command=command)

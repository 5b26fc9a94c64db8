"""Small saves whose bytes are known beforehand."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path

from liontool.checkpoint.run_folder.choosing import Choice, choose
from liontool.checkpoint.run_folder.layout import COMMIT, is_leftover, step_name
from liontool.resume.retention import Keep
from liontool.resume.saving import Saver
from liontool.resume.snapshot import Body, Snapshot

NAME = "model.weight"


def data_of(step: int, size: int) -> bytes:
    """The weights after a step."""
    return random.Random(f"{step} {size}").randbytes(size)


def snapshot(step: int, size: int = 64) -> Snapshot:
    """The state after a step: `size` bytes of weights and a small tree.

    Args:
        step: Its number; everything else follows from it.
        size: Bytes of weights.
    """
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({"__metadata__": {"format": "pt"}, NAME: entry}).encode()
    header += b" " * (-len(header) % 8)
    tree = {
        "model": {"weight": {"$tensor": {"name": NAME}}},
        "run": {"step": step, "epoch": 0, "drawn": step, "between": False},
    }
    return Snapshot(
        step=step,
        epoch=0,
        metric=None,
        body=Body(struct.pack("<Q", len(header)) + header, memoryview(data_of(step, size))),
        tree=tree,
        facts={"liontool.run": 1, "step": step, "epoch": 0, "ranks": 1, "level": "exact"},
    )


def saver(run: Path, saved: int | None, lines: list[str] | None = None, last: int = 2) -> Saver:
    """What saves the steps of a run.

    Args:
        run: Its folder.
        saved: The newest durable step.
        lines: Where to put what it says.
        last: How many checkpoints stay.
    """
    say = (lines if lines is not None else []).append
    return Saver(run, Keep(last=last), saved_step=saved, say=say)


def save(run: Path, step: int, size: int = 64, last: int = 2) -> Path:
    """Save a step and wait until it is durable."""
    saving = saver(run, None, last=last)
    saving.start(snapshot(step, size))
    saving.wait()
    return run / step_name(step)


def chosen_step(run: Path) -> int | None:
    """The step that a restart would go on from."""
    commit = choose(run).commit
    return None if commit is None else commit.step


def leftovers(run: Path) -> list[str]:
    """The hidden names that unfinished saves left."""
    return sorted(path.name for path in run.iterdir() if is_leftover(path.name))


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a checkpoint but COMMIT, which has the time of day in it."""
    return {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != COMMIT
    }


def wrong_bytes(choice: Choice, known: dict[int, dict[str, bytes]]) -> str | None:
    """How the chosen checkpoint differs from what was once saved."""
    if choice.chosen is None or choice.commit is None:
        return None
    step = choice.commit.step
    if choice.chosen.name != step_name(step):
        return f"{choice.chosen.name} holds step {step}"
    if contents(choice.chosen) != known.get(step):
        return f"step {step} is not what was saved"
    return None

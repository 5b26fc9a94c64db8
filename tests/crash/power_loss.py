"""The power goes while a run is saved: whatever is on the disk then, the run goes on."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.layout import step_name, tensors_name
from liontool.resume.quarantine import quarantine
from support.crash_disk import Disk, Log, Luck, Recorder
from support.crash_part import Part
from support.crash_saves import contents, saver, snapshot, wrong_bytes

FIXED = (
    Luck(0, 0, False),
    Luck(1, 1, False),
    Luck(1, 0, True),
    Luck(1, 0, False),
    Luck(0, 1, True),
)
ODDS = (0.1, 0.5, 0.9)

Known = dict[int, dict[str, bytes]]


def recorded_run(folder: Path, size: int) -> tuple[Log, Known]:
    """Five saves, of which retention keeps two, then a damaged one and two more saves.

    Args:
        folder: An empty folder.
        size: Bytes of weights in each save.
    """
    saving = saver(folder, None)
    recorder = Recorder(folder, lambda: saving.saved_step)
    known: Known = {}
    with recorder.recording():
        for step in range(1, 8):
            if step == 6:
                newest = folder / step_name(5)
                saving = saver(folder, 4)
                recorder.damage(newest / tensors_name(), 100, b"\0")
                quarantine(choose(folder))
            saving.start(snapshot(step, size))
            saving.wait()
            known[step] = contents(folder / step_name(step))
    return recorder.log, known


def lost_power(part: Part, folder: Path, log: Log, known: Known, random_states: int) -> None:
    """Look at every prefix of a log with fixed luck, and at random ones.

    Args:
        part: Where to count.
        folder: An empty folder, best in memory.
        log: What was done.
        known: What each step's checkpoint holds.
        random_states: How many random prefixes with random luck to look at.
    """
    chance = random.Random(part.seed)
    for length in range(len(log.ops) + 1):
        for luck in FIXED:
            _look(part, folder, log, known, length, luck, chance)
    for _ in range(random_states):
        length = chance.randrange(len(log.ops) + 1)
        luck = Luck(chance.choice(ODDS), chance.choice(ODDS), chance.random() < 0.5)
        _look(part, folder, log, known, length, luck, chance)


def _look(
    part: Part,
    folder: Path,
    log: Log,
    known: Known,
    length: int,
    luck: Luck,
    chance: random.Random,
) -> None:
    state = folder / "state"
    state.mkdir()
    Disk(log, length, luck, chance).put(state)
    part.counts["states"] += 1
    problem = _problem(part, state, log.reported_at(length), known)
    if problem:
        part.problem(f"after {length} calls of {len(log.ops)}, {luck}: {problem}")
    shutil.rmtree(state)


def _problem(part: Part, state: Path, reported: int | None, known: Known) -> str | None:
    choice = choose(state)
    part.counts["checkpoints refused"] += len(choice.refused)
    step = None if choice.commit is None else choice.commit.step
    if reported is not None and (step is None or step < reported):
        return f"{reported} was reported, {step} was found; {choice.refused}"
    part.counts["a reported step found" if reported is not None else "before the first save"] += 1
    if reported is not None and step is not None and step > reported:
        part.counts["a later step than the reported one"] += 1
    return wrong_bytes(choice, known)

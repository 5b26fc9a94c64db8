"""The power goes in the middle of a save: nothing that was reported is lost."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from crash.power_loss import Known, lost_power, recorded_run
from support.crash_disk import Disk, Log, Luck, Recorder, Sync
from support.crash_part import Part

STATES = 2000


@pytest.fixture
def recorded(memory: Path) -> tuple[Log, Known]:
    """Seven saves, one of which is damaged and moved to quarantine."""
    run = memory / "run"
    run.mkdir()
    return recorded_run(run, 3000)


def content(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_whatever_is_on_the_disk_a_reported_step_is_found(
    recorded: tuple[Log, Known], memory: Path
) -> None:
    """After every prefix of the calls, whichever of them that were not synced are lost."""
    part = Part("power loss", seed=6)
    (memory / "states").mkdir()
    lost_power(part, memory / "states", *recorded, random_states=STATES)
    assert part.problems == []
    assert part.counts["states"] > STATES
    assert part.counts["a reported step found"] > STATES // 2
    assert part.counts["checkpoints refused"]


def test_a_disk_that_loses_nothing_is_the_folder_itself(
    recorded: tuple[Log, Known], memory: Path
) -> None:
    """The log tells of every change that the saves made."""
    log, _ = recorded
    (memory / "disk").mkdir()
    Disk(log, len(log.ops), Luck(1, 1, False), random.Random(0)).put(memory / "disk")
    assert content(memory / "disk") == content(memory / "run")


def test_saves_without_syncs_are_found_out(recorded: tuple[Log, Known], memory: Path) -> None:
    """The harness sees a save that forgets to sync its files, and one that forgets its folders."""
    log, known = recorded
    for forgotten in ("files", "folders"):
        ops = [op for op in log.ops if not isinstance(op, Sync) or _kind(log, op) != forgotten]
        part = Part(forgotten, seed=6)
        (memory / forgotten).mkdir()
        with pytest.raises(AssertionError, match="was reported"):
            lost_power(part, memory / forgotten, Log(ops, log.reported, log.folders), known, STATES)


def _kind(log: Log, op: Sync) -> str:
    return "folders" if op.node in log.folders else "files"


def test_the_recorder_knows_what_it_does_not_know(memory: Path) -> None:
    """A call that it cannot replay is an error, not left out."""
    from liontool.checkpoint.system import SYSTEM

    recorder = Recorder(memory, lambda: None)
    with recorder.recording(), pytest.raises(AssertionError, match="does not know symlink"):
        SYSTEM.symlink("a", memory / "b")

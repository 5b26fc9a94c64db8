"""A disk that fills up under a run: the training goes on, and saves again once there is room."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from crash.kills import left_by, uninterrupted
from liontool.checkpoint.run_folder.choosing import choose
from support import crash_server as server
from support.crash_faults import Struck, room_for
from support.crash_part import Part
from support.crash_trainer import Plan, Trainer, warm_up

FULL_AFTER, ROOM_AFTER = "left 4", "left 10"

FAULTS: dict[str, Callable[[], AbstractContextManager[object]]] = {
    "no room": lambda: room_for(0),
    "room for 300 bytes": lambda: room_for(300),
    "over the quota": lambda: room_for(0, errno.EDQUOT),
    "EIO at every call": lambda: Struck(0, errno.EIO, forever=True).striking(),
}


def full_for_a_while(part: Part, folder: Path) -> None:
    """For some steps no save succeeds; the run says so, ends as it should and is saved then."""
    warm_up()
    server.check_single()
    plan = Plan(folder / "run", steps=14, save_every=1)
    reference = uninterrupted(plan, folder / "errors")
    for name, fault in FAULTS.items():
        part.counts["runs on a disk that was full for a while"] += 1
        child = server.Child(_training(plan, fault, ROOM_AFTER), folder / "errors")
        if child.end() != 0 or left_by(child.lines) != reference:
            part.problem(f"{name}: {child.code}: {child.lines[-5:]}: {child.complaints()}")
        said = [line for line in child.lines if line.startswith("say ")]
        part.counts["lines that told of a save that failed"] += len(said)
        commit = choose(plan.folder).commit
        if not said or commit is None or commit.step != plan.steps:
            part.problem(f"{name}: {said=}, the newest checkpoint is {commit}")
        child.close()
        shutil.rmtree(plan.folder)


def full_to_the_end(part: Part, folder: Path) -> None:
    """The last save fails too: the run ends with that error, and the older checkpoints stay."""
    warm_up()
    server.check_single()
    plan = Plan(folder / "run", steps=14, save_every=1)
    for name, fault in FAULTS.items():
        part.counts["runs on a disk that stayed full"] += 1
        child = server.Child(_training(plan, fault, "never"), folder / "errors")
        code = child.end()
        told = any(error in child.complaints() for error in ("PublishError", "NoSpaceError"))
        if code != 1 or not told:
            part.problem(f"{name}: {child.code}: {child.complaints()}")
        commit = choose(plan.folder).commit
        if commit is None or commit.step > 5:
            part.problem(f"{name}: the newest checkpoint is {commit}")
        child.close()
        shutil.rmtree(plan.folder)


def _training(
    plan: Plan, fault: Callable[[], AbstractContextManager[object]], until: str
) -> Callable[[server.Tell], None]:
    def train(tell: server.Tell) -> None:
        faults = ExitStack()

        def listen(line: str) -> None:
            tell(line)
            if line.startswith(FULL_AFTER):
                faults.enter_context(fault())
            elif line.startswith(until):
                faults.close()

        Trainer(plan, listen).train()

    return train

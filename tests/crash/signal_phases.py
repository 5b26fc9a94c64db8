"""Signals in each phase of a run: it saves, ends with its code for that, and goes on exactly."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from crash.kills import left_by, training, uninterrupted
from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.system import SYSTEM
from support import crash_server as server
from support.crash_part import Part
from support.crash_trainer import Plan, Trainer, warm_up

CODES = {signal.SIGTERM: 75, signal.SIGUSR1: 75, signal.SIGINT: 130}
PHASES = ("constructor", "data", "step", "validation", "save")
PAUSE = 0.01
LONG = 5.5
"""Seconds after which a second signal is not a repeat any more, and a little."""


@dataclass(frozen=True)
class Case:
    """A signal.

    Attributes:
        phase: What the run does when it comes.
        number: Which.
        group: Whether the workers get it too.
        workers: Processes that load data.
        times: How often it comes, at once.
    """

    phase: str
    number: signal.Signals
    group: bool
    workers: int
    times: int = 1


def cases() -> list[Case]:
    """All of them."""
    plain = product(PHASES, CODES, (False, True), (0, 2))
    storms = [Case("step", number, True, 2, times=5) for number in CODES]
    return [Case(*case) for case in plain] + storms


def signals(part: Part, folder: Path, tried: Iterable[Case]) -> None:
    """Send each signal once a run is well on its way, then let the run end."""
    warm_up()
    server.check_single()
    server.adopt_orphans()
    references: dict[int, dict[str, str]] = {}
    for case in tried:
        plan = Plan(folder / "run", case.workers, steps=12, pause=PAUSE)
        if case.workers not in references:
            references[case.workers] = uninterrupted(plan, folder / "errors")
        _try(part, case, plan, references[case.workers])
        shutil.rmtree(plan.folder, ignore_errors=True)


def _try(part: Part, case: Case, plan: Plan, reference: dict[str, str]) -> None:
    part.counts["signals"] += case.times
    part.counts[f"in the phase '{case.phase}'"] += 1
    errors = plan.folder.parent / "errors"
    child = server.Child(training(plan, calls=True), errors)
    if not child.listen(_reached(case.phase)):
        part.problem(f"{case}: the phase was not reached: {child.lines} {child.complaints()}")
    began = time.monotonic()
    for _ in range(case.times):
        child.send(case.number, group=case.group)
    try:
        _judge(part, case, plan, child.end(), child)
    except server.Hanging as error:
        part.problem(f"{case}: {error}")
    part.counts["slowest end, ms"] = max(
        part.counts["slowest end, ms"], round((time.monotonic() - began) * 1000)
    )
    if server.outlived([child.pid], 6):
        part.problem(f"{case}: workers lived on")
    child.close()
    again = server.Child(training(plan), errors)
    if again.end() != 0:
        part.problem(f"{case}: the next start ended with {again.code}: {again.complaints()}")
    again.close()
    for step, left in left_by(child.lines + again.lines).items():
        part.counts["states compared"] += 1
        if left != reference[step]:
            part.problem(f"{case}: step {step} differs")


def _reached(phase: str) -> Callable[[str], bool]:
    """Whether a line says that the phase is reached, not for the first time."""
    beginning, wanted = {
        "save": ("call fsync", 9),
        "constructor": ("call ", 3),
        "data": ("data", 20),
    }.get(phase, (phase, 2))
    count = [0]

    def is_it(line: str) -> bool:
        count[0] += line.startswith(beginning)
        return count[0] >= wanted

    return is_it


def _judge(part: Part, case: Case, plan: Plan, code: int, child: server.Child) -> None:
    """The code, and that the newest checkpoint is that of the last step."""
    allowed = {CODES[case.number]}
    if case.phase == "constructor" and not any(line.startswith("left") for line in child.lines):
        # Before its handlers are there the signal does what it always does.
        allowed |= {-case.number}
        if "KeyboardInterrupt" in child.complaints():
            allowed |= {1}
    if code not in allowed:
        part.problem(f"{case}: ended with {code}, not {allowed}: {child.complaints()}")
        return
    part.counts[f"ended with {code}"] += 1
    if code not in (75, 130):
        return
    commit = choose(plan.folder).commit
    last = max((int(step) for step in left_by(child.lines) if step != "done"), default=0)
    if last != (0 if commit is None else commit.step):
        part.problem(f"{case}: the last step was {last}, the newest checkpoint is {commit}")


def second_signal(part: Part, folder: Path) -> None:
    """A second signal after five seconds ends a run whose save hangs, at once."""
    plan = Plan(folder / "run", steps=4)
    child = server.Child(_hanging(plan), folder / "errors")
    if not child.listen(lambda line: line == "hangs"):
        part.problem(f"no save was begun: {child.lines} {child.complaints()}")
    child.send(signal.SIGTERM)
    time.sleep(LONG)
    child.listen(seconds=0.01)
    if child.code is not None:
        part.problem(f"the first signal ended it with {child.code}: {child.complaints()}")
    child.send(signal.SIGTERM)
    child.listen(seconds=3)
    if child.code is None:
        part.problem("a second signal did not end it")
    part.counts[f"a second signal ended with {child.code}"] += 1
    child.kill()
    child.close()
    shutil.rmtree(plan.folder)


def _hanging(plan: Plan) -> Callable[[server.Tell], None]:
    def train(tell: server.Tell) -> None:
        def hang(fd: int) -> None:
            tell("hangs")
            time.sleep(60)

        trainer = Trainer(plan, tell)

        def listen(line: str) -> None:
            if line.startswith("resumed"):
                SYSTEM.fsync = hang
            tell(line)

        trainer.tell = listen
        trainer.train()

    return train

"""Two processes want one run: exactly one gets it, and a dead one keeps nobody out."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

from crash.kills import left_by, saved, training, uninterrupted
from liontool.checkpoint.run_folder import lock
from liontool.errors import LockedError
from liontool.resume import orphans
from support import crash_server as server
from support.crash_part import Part
from support.crash_trainer import Plan, Trainer, warm_up

GO = signal.SIGUSR2
WAIT = 0.1
PAUSE = 0.004


def two_at_once(part: Part, folder: Path, times: int) -> None:
    """Let two processes start at the same moment; one trains to the end, one says why not."""
    warm_up()
    server.check_single()
    plan = Plan(folder / "run", steps=6, pause=PAUSE)
    reference = uninterrupted(plan, folder / "errors")
    for _ in range(times):
        part.counts["starts of two at once"] += 1
        pair = [server.Child(_starting(plan), folder / f"errors-{n}") for n in range(2)]
        for child in pair:
            assert child.listen(lambda line: line == "ready")
        for child in pair:
            os.kill(child.pid, GO)
        codes = sorted(child.end() for child in pair)
        if codes != [0, 3]:
            part.problem(f"ended with {codes}: {[child.lines for child in pair]}")
            continue
        winner, loser = sorted(pair, key=lambda child: child.code or 0)
        if str(winner.pid) not in loser.lines[-1]:
            part.problem(f"the loser does not name the winner: {loser.lines[-1]}")
        if left_by(winner.lines) != reference:
            part.problem("the winner's run differs")
        part.counts["exactly one won, and the other named it"] += 1
        for child in pair:
            child.close()
        shutil.rmtree(plan.folder)


def _starting(plan: Plan) -> Callable[[server.Tell], None]:
    def start(tell: server.Tell) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, {GO})
        lock.RunLock.acquire.__defaults__ = (WAIT,)
        trainer = Trainer(plan, tell)
        tell("ready")
        signal.sigwait({GO})
        try:
            trainer.train()
        except LockedError as error:
            tell(f"lost: {error}")
            raise SystemExit(3) from None

    return start


def after_a_kill(part: Part, folder: Path, times: int, workers: int) -> None:
    """Kill the main process alone, and start again while the workers are still there."""
    warm_up()
    server.check_single()
    server.adopt_orphans()
    plan = Plan(folder / "run", workers, steps=12, pause=PAUSE)
    reference = uninterrupted(plan, folder / "errors")
    groups = []
    for number in range(times):
        work = training(plan) if number % 2 else _with_stubborn_workers(plan)
        child = server.Child(work, folder / "errors")
        assert child.listen(saved(4)), child.complaints()
        child.kill(group=False)
        groups.append(child.pid)
        child.close()
        part.counts[f"stale locks of a run with {workers} workers"] += 1
        began = time.monotonic()
        part.counts["started while workers of the dead run lived"] += _has_members(child.pid)
        again = server.Child(training(plan), folder / "errors")
        if not again.listen(lambda line: line.startswith("resumed")):
            part.problem(f"no start after a kill: {again.lines} {again.complaints()}")
        waited = round((time.monotonic() - began) * 1000)
        part.counts["longest start, ms"] = max(part.counts["longest start, ms"], waited)
        if again.end() != 0 or left_by(child.lines) | left_by(again.lines) != reference:
            part.problem(f"{again.code}, {again.lines[-3:]}: {again.complaints()}")
        again.close()
        shutil.rmtree(plan.folder)
    if left := server.outlived(groups):
        part.problem(f"{len(left)} groups of workers lived on")


def _with_stubborn_workers(plan: Plan) -> Callable[[server.Tell], None]:
    """Training whose workers live on for a while when it is killed, as without prctl."""

    def train(tell: server.Tell) -> None:
        orphans.Tie.__call__ = lambda self: None  # type: ignore[method-assign]
        training(plan)(tell)

    return train


def _has_members(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True

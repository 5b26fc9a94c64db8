"""kill -9 at every system call that has to do with files, before it is made.

strace counts each kind of call for itself, so a first run is only watched, and says how many there
are of each kind.
"""

from __future__ import annotations

import mmap
import os
import re
import shutil
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crash.kills import left_by, saved, training, uninterrupted
from liontool.checkpoint.run_folder.choosing import checkpoints, choose
from liontool.checkpoint.run_folder.layout import tensors_name
from liontool.resume.leftovers import delete_leftovers
from liontool.resume.retention import Keep
from liontool.resume.saving import Saver
from support import crash_server as server
from support.crash_part import Part
from support.crash_saves import contents, save, snapshot, wrong_bytes
from support.crash_trainer import Plan, warm_up

CALLS = "%file,%desc"
GO = signal.SIGUSR2

_CALL = re.compile(r"(\d+) +(\w+)\(")


class Reporting(Saver):
    """Says what is durable to another process, with no system call."""

    board: mmap.mmap

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "saved_step":
            self.board[0] = value or 0


@dataclass(frozen=True)
class Call:
    """A system call.

    Attributes:
        name: Its kind.
        number: The how manyth of its kind in its thread, from 1.
    """

    name: str
    number: int

    def __str__(self) -> str:
        """As in a sentence."""
        return f"{self.name} number {self.number}"


@contextmanager
def strace(pid: int, kill_at: Call | None, log: Path) -> Iterator[None]:
    """Watch a process and all it starts; kill it at a call.

    Args:
        pid: Of the process.
        kill_at: At which call; None to watch only.
        log: Where to write the calls.

    Raises:
        FileNotFoundError: strace is not installed.
    """
    command = ["strace", "-f", "-o", str(log), "-e", f"trace={CALLS}"]
    if kill_at is not None:  # with --seccomp-bpf it would inject nothing
        command += ["-e", f"inject={kill_at.name}:signal=SIGKILL:when={kill_at.number}"]
    with subprocess.Popen(
        [*command, "-p", str(pid)], stderr=subprocess.PIPE, text=True
    ) as watching:
        deadline = time.monotonic() + 10
        while "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text():
            assert watching.poll() is None, watching.stderr.read() if watching.stderr else ""
            assert time.monotonic() < deadline, "strace does not attach"
            time.sleep(0.001)
        yield
        watching.wait()


def calls_in(log: Path) -> list[Call]:
    """The calls that strace saw, in their order; the highest count of all threads."""
    counts: Counter[tuple[str, str]] = Counter()
    found: dict[Call, None] = {}
    for line in log.read_text(errors="replace").splitlines():
        match = _CALL.match(line)
        if match is not None:
            counts[match[1], match[2]] += 1
            found[Call(match[2], counts[match[1], match[2]])] = None
    return list(found)


def waiting(work: Callable[[server.Tell], None]) -> Callable[[server.Tell], None]:
    """The work, begun when the signal comes; until then the process can be attached to."""

    def wait(tell: server.Tell) -> None:
        tell("waiting")
        signal.sigwait({GO})
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {GO})
        work(tell)

    return wait


def killed_at(work: Callable[[server.Tell], None], call: Call | None, folder: Path) -> server.Child:
    """Do the work in a process of its own that is killed at a call; returns when it has ended."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {GO})
    child = server.Child(waiting(work), folder / "errors")
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {GO})
    assert child.listen(lambda line: line == "waiting")
    with strace(child.pid, call, folder / "calls"):
        os.kill(child.pid, GO)
        child.end()
    child.close()
    return child


def every_call_of_a_save(part: Part, folder: Path, older: int, stride: int = 1) -> None:
    """Kill a save at each of its calls; then the one before it is there, or all of it.

    Args:
        part: Where to count.
        folder: An empty folder.
        older: How many checkpoints there are already; with two the oldest is removed.
        stride: Leave out all but every so manyth call.
    """
    run, template = folder / "run", folder / "template"
    template.mkdir()
    known = {step: contents(save(template, step)) for step in range(1, older + 1)}
    shutil.copytree(template, run)
    known[older + 1] = contents(save(run, older + 1))
    shutil.rmtree(run)
    todo: list[Call | None] = [None]
    while todo:
        call = todo.pop(0)
        shutil.copytree(template, run)
        board = mmap.mmap(-1, 1)
        child = killed_at(_saving(run, older, board), call, folder)
        _look(part, run, older, board[0], known, f"killed at {call} of save {older + 1}")
        shutil.rmtree(run)
        if call is None:
            todo += calls_in(folder / "calls")[::stride]
        _judge(part, child, call, "save")


def _judge(part: Part, child: server.Child, call: Call | None, what: str) -> None:
    if call is None:
        assert child.code == 0, child.complaints()
    elif child.code == -9:
        part.counts[f"calls of a {what} killed"] += 1
    elif child.code == 0 and what == "run":
        # A save that falls due during another is left out, so not every run makes every call.
        part.counts["calls that did not come again"] += 1
    else:
        part.problem(f"{call} of a {what}: ended with {child.code}: {child.complaints()}")


def _saving(run: Path, older: int, board: mmap.mmap) -> Callable[[server.Tell], None]:
    board[0] = older
    Reporting.board = board
    saving = Reporting(run, Keep(last=2), saved_step=older or None, say=lambda _: None)
    new = snapshot(older + 1)

    def work(tell: server.Tell) -> None:
        saving.start(new)
        saving.wait()

    return work


def _look(
    part: Part, run: Path, older: int, reported: int, known: dict[int, dict[str, bytes]], what: str
) -> None:
    choice = choose(run)
    step = 0 if choice.commit is None else choice.commit.step
    if step not in (older, older + 1) or step < reported:
        part.problem(f"{what}: {reported} was reported, then {choice}")
    if wrong := wrong_bytes(choice, known):
        part.problem(f"{what}: {wrong}")
    part.counts["the new one was there" if step > older else "the one before was there"] += 1
    part.counts["hidden names left"] += len(delete_leftovers(run))
    if choose(save(run, older + 2).parent).chosen != run / f"step-{older + 2:010d}":
        part.problem(f"{what}: nothing could be saved afterwards")


def every_call_of_a_run(part: Part, folder: Path, stride: int = 1) -> None:
    """Kill a run that finds a damaged checkpoint at each of its calls, then let it end."""
    warm_up()
    server.check_single()
    plan = Plan(folder / "run", steps=4, save_every=2)
    reference = uninterrupted(plan, folder / "errors")
    template = folder / "before"
    _stopped_and_damaged(plan, template, folder / "errors")
    todo: list[Call | None] = [None]
    while todo:
        call = todo.pop(0)
        shutil.copytree(template, plan.folder)
        child = killed_at(training(plan), call, folder)
        again = server.Child(training(plan), folder / "errors")
        if again.end() != 0:
            part.problem(f"killed at {call} of a run: {again.code}: {again.complaints()}")
        again.close()
        for step, left in (*left_by(child.lines).items(), *left_by(again.lines).items()):
            part.counts["states compared"] += 1
            if left != reference[step]:
                part.problem(f"killed at {call} of a run: step {step} differs")
        shutil.rmtree(plan.folder)
        if call is None:
            todo += calls_in(folder / "calls")[::stride]
        _judge(part, child, call, "run")


def _stopped_and_damaged(plan: Plan, template: Path, errors: Path) -> None:
    """A run that was killed after its third step, with a bit of its newest checkpoint flipped."""
    child = server.Child(training(replace(plan, save_every=1, pause=0.01)), errors)
    assert child.listen(saved(2)), child.complaints()
    child.kill()
    child.close()
    newest = checkpoints(plan.folder)[0]
    data = bytearray((newest / tensors_name()).read_bytes())
    data[-1] ^= 1
    (newest / tensors_name()).write_bytes(data)
    plan.folder.rename(template)

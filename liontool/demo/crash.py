"""The last part of the demo: a run is killed in the middle of a save, and goes on."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from liontool.checkpoint.run_folder.layout import COMMIT, is_leftover, step_of
from liontool.demo import CrashResult, Step
from liontool.errors import ResumeError

STEPS = 120
SAVE_EVERY = 10
_TRIES = 3
_LOOK_EVERY = 0.0005
_TIME_TO_STOP = 0.01


@dataclass(frozen=True)
class _Run:
    """What the training program is told: see `trainer`."""

    folder: Path
    checkpoint: Path
    log: Path
    steps: int

    @contextmanager
    def started(self) -> Iterator[subprocess.Popen[bytes]]:
        """The program, which does not outlive the body."""
        words = [self.folder, self.checkpoint, self.log, self.steps, SAVE_EVERY]
        command = [sys.executable, "-m", "liontool.demo.trainer", *map(str, words)]
        with subprocess.Popen(command) as process:
            try:
                yield process
            finally:
                process.kill()

    def done(self) -> tuple[Step, ...]:
        """Every step of every start, in the order in which they were made."""
        lines = [line.split() for line in self.log.read_text(encoding="ascii").splitlines()]
        return tuple((int(step), float.fromhex(loss)) for step, loss in lines)

    def saved_step(self) -> int:
        """Step of the newest checkpoint."""
        return max((step_of(path.name) or 0 for path in _listed(self.folder)), default=0)

    def written(self) -> int:
        """Bytes of a save that is not finished."""
        hidden = [path for path in _listed(self.folder) if is_leftover(path.name)]
        files = [file for path in hidden for file in _listed(path)]
        return 0 if COMMIT in {file.name for file in files} else sum(map(_size, files))

    def clear(self) -> None:
        """Remove what an older demo left."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.log.unlink(missing_ok=True)


def possible() -> bool:
    """Whether what saving needs is installed."""
    return find_spec("xxhash") is not None


def kill_and_resume(
    folder: Path,
    checkpoint: Path,
    whole: Sequence[float],
    *,
    say: Callable[[str], None],
    command: Callable[[Sequence[str]], None],
) -> CrashResult:
    """Go on from `checkpoint` once more, with a kill -9 in the middle of a save.

    Args:
        folder: Where the folder of the run and its losses go; what an older demo left is replaced.
        checkpoint: A converted checkpoint.
        whole: Losses of the run that went on from it and was never interrupted.
        say: Shows one line of progress.
        command: Runs `liontool` with these arguments, its output in sight; raises if it fails.

    Raises:
        ResumeError: The training program failed, or no save could be hit.
    """
    steps = min(STEPS, len(whole))
    run = _Run(folder / "killed", checkpoint, folder / "killed.losses", steps)
    say(f"Going on with Lion once more, saved every {SAVE_EVERY} steps, to be killed ...")
    written = _killed_in_a_save(run)
    before = run.done()
    say(f"Killed at step {before[-1][0]}, in the middle of a save.")
    command(["resume", str(run.folder)])
    say("Starting the same program again ...")
    with run.started() as program:
        if code := program.wait():
            raise ResumeError(f"{run.folder}: the training program of the demo ended with {code}")
    after = run.done()[len(before) :]
    return CrashResult(tuple(whole[:steps]), before, after, written)


def _killed_in_a_save(run: _Run) -> int:
    """Bytes that the save had written when the kill came."""
    for _ in range(_TRIES):
        run.clear()
        with run.started() as program:
            _wait_for_a_save(program, run)
        if written := run.written():
            return written
    raise ResumeError(f"{run.folder}: no save of the demo could be hit while it wrote")


def _wait_for_a_save(program: subprocess.Popen[bytes], run: _Run) -> None:
    while program.poll() is None:
        late = run.saved_step() >= run.steps // 3
        if late and run.written() and _stopped_in_it(program, run):
            return
        time.sleep(_LOOK_EVERY)


def _stopped_in_it(program: subprocess.Popen[bytes], run: _Run) -> bool:
    """A save takes milliseconds: stop, look again, and let go if it is over."""
    program.send_signal(signal.SIGSTOP)
    time.sleep(_TIME_TO_STOP)
    if run.written():
        return True
    program.send_signal(signal.SIGCONT)
    return False


def _listed(folder: Path) -> list[Path]:
    # Names come and go while the program runs.
    with suppress(FileNotFoundError, NotADirectoryError):
        return list(folder.iterdir())
    return []


def _size(file: Path) -> int:
    with suppress(FileNotFoundError):
        return file.stat().st_size
    return 0

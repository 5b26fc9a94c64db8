"""All crash tests in their long form, and the report: `make crash-test`.

python tests/crash/run.py --report docs/crash-report.md

Each part runs in a process of its own, two at a time. The end is an error if anything was not as
promised, if a tool is missing, or if it took longer than it may.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from crash import report
from support.crash_part import Part, memory_folder

LIMIT = 45 * 60
AT_ONCE = 2


@dataclass(frozen=True)
class Scale:
    """How much to do.

    Attributes:
        kills: With each number of workers.
        stride: Every how manyth call of a save to kill it at.
        run_stride: Every how manyth call of a run.
        states: Of a disk that lost power, besides those of every prefix.
        mounted: Saves on a full tmpfs.
        payload: Bits of the tensors.
        signals: Every how manyth signal to send.
        pairs: How many times two processes start at once.
        stale: How many times a run is started after a kill, with each number of workers.
        second: Whether to wait for a second signal.
    """

    kills: int = 500
    stride: int = 1
    run_stride: int = 1
    states: int = 10_000
    mounted: int = 500
    payload: int = 10_000
    signals: int = 1
    pairs: int = 100
    stale: int = 20
    second: bool = True


LONG = Scale()
SHORT = Scale(
    kills=15,
    stride=7,
    run_stride=47,
    states=1000,
    mounted=20,
    payload=1000,
    signals=7,
    pairs=10,
    stale=2,
    second=False,
)


def _kills(part: Part, folder: Path, scale: Scale, workers: int) -> None:
    from crash.kills import kills
    from support.crash_trainer import Plan

    plans = [Plan(folder, workers, lion=lion, seed=part.seed) for lion in (False, True)]
    kills(part, folder, plans, scale.kills)


def _calls_of_a_save(part: Part, folder: Path, scale: Scale) -> None:
    from crash.system_calls import every_call_of_a_save

    for older in (0, 2):
        (folder / str(older)).mkdir()
        every_call_of_a_save(part, folder / str(older), older, scale.stride)


def _calls_of_a_run(part: Part, folder: Path, scale: Scale) -> None:
    from crash.system_calls import every_call_of_a_run

    every_call_of_a_run(part, folder, scale.run_stride)


def _power_loss(part: Part, folder: Path, scale: Scale) -> None:
    from crash.power_loss import lost_power, recorded_run

    sizes = (64, 3000, 40_000)
    for size in sizes:
        run, states = folder / f"run-{size}", folder / f"states-{size}"
        run.mkdir()
        states.mkdir()
        log, known = recorded_run(run, size)
        lost_power(part, states, log, known, scale.states // len(sizes) + 1)


def _full_disk(part: Part, folder: Path, scale: Scale) -> None:
    from crash import full_disk

    full_disk.every_byte(part, folder)
    full_disk.every_call(part, folder)


def _full_run(part: Part, folder: Path, scale: Scale) -> None:
    from crash.full_run import full_for_a_while, full_to_the_end

    full_for_a_while(part, folder)
    full_to_the_end(part, folder)


def _full_tmpfs(part: Part, folder: Path, scale: Scale) -> None:
    from crash import full_disk

    with full_disk.tmpfs(folder / "mounted") as mounted:
        full_disk.full_tmpfs(part, mounted, tries=scale.mounted)


def _bit_flips(part: Part, folder: Path, scale: Scale) -> None:
    from crash.bit_flips import all_flips
    from support.crash_saves import save

    save(folder, 1, size=20_000)
    all_flips(part, save(folder, 2, size=20_000), share=1, payload=scale.payload)


def _bits_of_a_run(part: Part, folder: Path, scale: Scale) -> None:
    from crash.bit_flips import bits_of_a_run

    bits_of_a_run(part, folder, scale.payload)


def _signals(part: Part, folder: Path, scale: Scale) -> None:
    from crash.signal_phases import cases, second_signal, signals

    signals(part, folder, cases()[:: scale.signals])
    if scale.second:
        second_signal(part, folder)


def _two_writers(part: Part, folder: Path, scale: Scale) -> None:
    from crash.two_writers import after_a_kill, two_at_once

    two_at_once(part, folder, scale.pairs)
    for workers in (0, 2):
        after_a_kill(part, folder, scale.stale, workers)


PARTS: dict[str, Callable[[Part, Path, Scale], None]] = {
    "kill -9, no loader workers": partial(_kills, workers=0),
    "kill -9, two loader workers": partial(_kills, workers=2),
    "kill -9 at every system call of a save": _calls_of_a_save,
    "kill -9 at every system call of a run": _calls_of_a_run,
    "power loss": _power_loss,
    "full disk and failing calls": _full_disk,
    "runs on a full disk": _full_run,
    "a tmpfs that is really full": _full_tmpfs,
    "bit flips": _bit_flips,
    "bit flips in a real run": _bits_of_a_run,
    "signals": _signals,
    "two writers and stale locks": _two_writers,
}


def main() -> int:
    """Run all parts, or one; how it ended."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--report", type=Path, help="where to write the report")
    parser.add_argument("--part", choices=PARTS, help="run this one only, here; prints JSON")
    parser.add_argument("--short", action="store_true", help="do a little of it")
    parser.add_argument("--seed", type=int, default=6)
    options = parser.parse_args()
    if options.part is not None:
        print(json.dumps(vars(_run(options.part, options.seed, SHORT if options.short else LONG))))
        return 0
    missing = missing_tools()
    if missing:
        print("\n".join(missing), file=sys.stderr)
        return 1
    began = time.monotonic()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        parts = list(pool.map(lambda name: _in_a_process(name, options.seed, began), PARTS))
    seconds = time.monotonic() - began
    text = report.written(parts, seconds)
    print(text)
    if options.report is not None:
        options.report.write_text(text, encoding="utf-8")
    return any(part.problems for part in parts) or seconds > LIMIT


def missing_tools() -> list[str]:
    """What the long form needs and this machine has not."""
    missing = []
    if shutil.which("strace") is None:
        missing.append("strace is missing; run: apt-get install strace")
    if not os.access("/dev/shm", os.W_OK):
        missing.append("/dev/shm is missing; give the container some: --shm-size=1g")
    try:
        from crash.full_disk import tmpfs

        with tempfile.TemporaryDirectory() as folder, tmpfs(Path(folder, "mounted")):
            pass
    except PermissionError as error:
        missing.append(f"no tmpfs can be mounted: {error}; run as root, or in `unshare -rm`")
    return missing


def _in_a_process(name: str, seed: int, began: float) -> Part:
    """One part; that it broke off or took too long is a problem of it."""
    command = [sys.executable, __file__, "--part", name, "--seed", str(seed)]
    part = Part(name, seed)
    try:
        left = LIMIT - (time.monotonic() - began)
        done = subprocess.run(command, capture_output=True, text=True, timeout=left)
        if done.returncode:
            part.problems.append(f"broke off with {done.returncode}: {done.stderr[-3000:]}")
        else:
            found = json.loads(done.stdout.splitlines()[-1])
            part.counts.update(found["counts"])
            part.problems, part.seconds = found["problems"], found["seconds"]
    except subprocess.TimeoutExpired:
        part.problems.append("was not done in time")
    print(f"{name}: {part.seconds:.0f} s, {len(part.problems)} problems", flush=True)
    print(*part.problems, sep="\n", end="\n" * bool(part.problems), flush=True)
    return part


def _run(name: str, seed: int, scale: Scale) -> Part:
    warnings.simplefilter("ignore")  # torchdata's, of torch
    folder = memory_folder()
    try:
        with Part(name, seed) as part:
            try:
                PARTS[name](part, folder, scale)
            except AssertionError as error:
                if not part.problems:
                    part.problems.append(f"broke off: {error}: {traceback.format_exc()}")
        return part
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    sys.exit(main())

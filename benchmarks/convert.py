"""What does a conversion cost, in time and memory, beside a plain copy of its output?

Yardsticks, run in turn with ours: `cp` of the output bytes followed by fsync, and `torch.load` +
`torch.save`, which is what people do by hand. Ours is timed twice: as the whole command, and
without the start of Python and its imports. Memory is RssAnon, sampled: max RSS counts the page
cache too.

    python benchmarks/convert.py [--gigabytes 2] [--parameters 96] [--rounds 5] [--folder .]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.source import open_source

BUDGETS = {"safetensors": 1.1, "torch zip": 1.3}
MEMORY_BUDGET = 64_000_000
HEADER_FACTOR = 16

MAKE = """
import sys, torch
path, elements, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
block = torch.randn(elements)
def some(scale):
    return block.roll(int(torch.randint(elements, ()))) * scale
torch.save({
    "model": {f"layers.{i}.weight": some(0.02) for i in range(count)},
    "optimizer": {
        "state": {i: {"step": torch.tensor(500.0), "exp_avg": some(1e-3),
                      "exp_avg_sq": some(1e-3).square()} for i in range(count)},
        "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1,
                          "amsgrad": False, "params": list(range(count))}],
    },
}, path)
"""

LIBRARY = """
import sys, time
from liontool import convert_checkpoint
import numpy
start = time.perf_counter()
convert_checkpoint(sys.argv[1], output=sys.argv[2], lr_ratio=3)
print(time.perf_counter() - start)
"""

BY_HAND = """
import os, sys, time, torch
start = time.perf_counter()
saved = torch.load(sys.argv[1], weights_only=True)
for state in saved["optimizer"]["state"].values():
    del state["exp_avg_sq"], state["step"]
for group in saved["optimizer"]["param_groups"]:
    group.update(lr=group["lr"] / 3, weight_decay=group["weight_decay"] * 3, betas=(0.9, 0.99))
torch.save(saved, sys.argv[2])
with open(sys.argv[2], "rb") as file:
    os.fsync(file.fileno())
print(time.perf_counter() - start)
"""


@dataclass(frozen=True)
class Figure:
    """One run of one command.

    Attributes:
        seconds: Of the whole process.
        inner: Of the work alone, without start and imports, where the command tells.
        anonymous: Peak of RssAnon, bytes.
    """

    seconds: float
    inner: float
    anonymous: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the source")
    parser.add_argument("--parameters", type=int, default=96, help="parameters of the model")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        source = Path(folder, "adamw.ckpt")
        count = options.parameters
        elements = int(options.gigabytes * 1e9 / 4 / 3 / count)
        subprocess.run([sys.executable, "-c", MAKE, source, str(elements), str(count)], check=True)
        print(f"{source.stat().st_size / 1e9:.2f} GB of AdamW checkpoint, {options.rounds} rounds")
        for container, suffix in (("torch zip", ".ckpt"), ("safetensors", ".safetensors")):
            measure(container, source, Path(folder, f"out{suffix}"), options.rounds)


def measure(container: str, source: Path, output: Path, rounds: int) -> None:
    """All commands for one kind of output, in turn, and their table."""
    by_hand = output.with_name("by-hand.ckpt")
    options = ("-o", output, "--lr-ratio", "3")
    commands: dict[str, Callable[[], Figure]] = {
        "liontool convert (command)": lambda: run("-m", "liontool", "convert", source, *options),
        "liontool convert (call)": lambda: run("-c", LIBRARY, source, output),
        "cp + fsync": lambda: copy(output),
    }
    if container == "torch zip":
        commands["torch.load + torch.save"] = lambda: run("-c", BY_HAND, source, by_hand)
    figures: dict[str, list[Figure]] = {name: [] for name in commands}
    for turn in range(rounds + 1):
        for name, action in commands.items():
            for written in (output, by_hand, copied(output)):
                written.unlink(missing_ok=True)
            if name == "cp + fsync":
                run("-c", LIBRARY, source, output)
            os.sync()  # nobody pays for what another has left to be written
            figure = action()
            if turn:  # the first round warms the page cache
                figures[name].append(figure)
    report(container, source, output, figures)


def run(*command: str | Path) -> Figure:
    """A process, timed; what it prints last is the time of its work, if that is a number."""
    with tempfile.NamedTemporaryFile("r") as printed:
        start = time.perf_counter()
        process = subprocess.Popen([sys.executable, *command], stdout=printed.fileno())
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.002)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise SystemExit(f"{command} failed")
        printed.seek(0)
        return Figure(seconds, float(printed.read()) if command[0] == "-c" else seconds, peak)


def anonymous(pid: int) -> int:
    """RssAnon of a running process, bytes; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon:"))
    return next((int(words[1]) * 1024 for words in lines), 0)


def copied(path: Path) -> Path:
    """Where `copy` puts it."""
    return path.with_suffix(".copy")


def copy(path: Path) -> Figure:
    """`cp` and an fsync of what it wrote."""
    target = copied(path)
    start = time.perf_counter()
    subprocess.run(["cp", path, target], check=True)
    with target.open("rb") as file:
        os.fsync(file.fileno())
    seconds = time.perf_counter() - start
    return Figure(seconds, seconds, 0)


def report(container: str, source: Path, output: Path, figures: dict[str, list[Figure]]) -> None:
    """Medians, and the medians of the ratios round by round."""
    yardstick = [figure.inner for figure in figures["cp + fsync"]]
    print(f"\n{container}: at most {BUDGETS[container]} x cp + fsync wanted")
    print(f"{'':28} {'seconds':>8} {'x cp + fsync':>13} {'RssAnon MB':>11}")
    for name, runs in figures.items():
        ratios = [run.inner / base for run, base in zip(runs, yardstick, strict=True)]
        seconds, peak = statistics.median(r.inner for r in runs), max(r.anonymous for r in runs)
        memory = f"{peak / 1e6:11.0f}" if peak else ""
        print(f"{name:28} {seconds:8.2f} {statistics.median(ratios):13.2f} {memory}")
    allowed = MEMORY_BUDGET + HEADER_FACTOR * open_source(source).document().overhead
    print(f"memory allowed: {allowed / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

"""What does it cost to look into a checkpoint, in time and memory?

Yardsticks, run in turn with ours on the same file in a warm page cache: `cp`, a plain loop of
`readinto` over all bytes, `torch.load`, and for safetensors `load_file` and sft-cli, if it can be
started. Every figure is of a whole process, its start and its imports included, but for those
marked "the call". Memory is RssAnon, sampled: max RSS counts the page cache too.

    python benchmarks/inspect_file.py [--gigabytes 2] [--parameters 96] [--rounds 5] [--folder .]
        [--sft COMMAND]
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from convert import anonymous

MAKE = """
import sys, torch
from safetensors.torch import save_file
folder, elements, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
torch.manual_seed(0)
block = torch.randn(elements)
def some(scale):
    return block.roll(int(torch.randint(elements, ()))) * scale
model = {f"layers.{i}.weight": some(0.02) for i in range(count)}
state = {i: {"step": torch.tensor(500.0), "exp_avg": some(1e-3), "exp_avg_sq": some(3e-3).square()}
         for i in range(count)}
group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False,
         "params": list(range(count))}
torch.save({"model": model, "optimizer": {"state": state, "param_groups": [group]}},
           f"{folder}/run.pt")
flat = {f"state.{i}.{key}": value for i, slot in state.items() for key, value in slot.items()}
save_file({**model, **flat}, f"{folder}/run.safetensors")
"""

TIMED = """
import sys, time
{imports}
start = time.perf_counter()
{work}
print(time.perf_counter() - start)
"""

READ = TIMED.format(
    imports="",
    work="""
block = memoryview(bytearray(1 << 20))
with open(sys.argv[1], "rb", buffering=0) as file:
    while file.readinto(block):
        pass
""",
)
STATISTICS = TIMED.format(
    imports="import numpy\nfrom liontool.inspect.statistics import statistics",
    work="statistics(sys.argv[1])",
)
TORCH_LOAD = TIMED.format(imports="import torch", work="torch.load(sys.argv[1], weights_only=True)")
LOAD_FILE = TIMED.format(
    imports="from safetensors.torch import load_file", work="load_file(sys.argv[1])"
)

LIONTOOL = (sys.executable, "-m", "liontool")
PYTHON = (sys.executable, "-c")


@dataclass(frozen=True)
class Command:
    """Something to be measured.

    Attributes:
        name: In the table.
        words: The command, to which the file is appended.
        containers: The files that it can take.
        copies: Whether it takes the name of another file after the first.
    """

    name: str
    words: tuple[str, ...]
    containers: tuple[str, ...] = (".pt", ".safetensors")
    copies: bool = False


# One line for each; `diff` and `edit` have their place here.
COMMANDS = (
    Command("liontool inspect", (*LIONTOOL, "inspect")),
    Command("liontool inspect --tensors", (*LIONTOOL, "inspect", "--tensors")),
    Command("liontool inspect --stats", (*LIONTOOL, "inspect", "--stats")),
    Command("liontool inspect --stats, the call", (*PYTHON, STATISTICS)),
    Command("readinto, the loop", (*PYTHON, READ)),
    Command("cp", ("cp",), copies=True),
    Command("torch.load, the call", (*PYTHON, TORCH_LOAD), (".pt",)),
    Command("safetensors load_file, the call", (*PYTHON, LOAD_FILE), (".safetensors",)),
)
YARDSTICK = "readinto, the loop"


@dataclass(frozen=True)
class Figure:
    """One run.

    Attributes:
        seconds: Of the whole process, or of its work alone.
        processor: Seconds of all cores, of the whole process.
        anonymous: Peak of RssAnon, bytes.
    """

    seconds: float
    processor: float
    anonymous: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=2.0, help="size of the checkpoint")
    parser.add_argument("--parameters", type=int, default=96, help="parameters of the model")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each command")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go")
    parser.add_argument("--sft", default="sft", help="how sft-cli is called where it is installed")
    options = parser.parse_args()
    commands = [*COMMANDS, *sft(options.sft)]
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        elements = int(options.gigabytes * 1e9 / 4 / 3 / options.parameters)
        sizes = (str(elements), str(options.parameters))
        subprocess.run([*PYTHON, MAKE, folder, *sizes], check=True)
        for suffix in (".pt", ".safetensors"):
            file = Path(folder, f"run{suffix}")
            chosen = [command for command in commands if suffix in command.containers]
            measure(file, chosen, options.rounds)


def sft(name: str) -> Sequence[Command]:
    """sft-cli, if it is there."""
    found = shutil.which(name)
    if found is None:
        print(f"sft-cli left out: there is no command '{name}'; see --sft")
        return ()
    return (Command("sft-cli info", (found, "info"), (".safetensors",)),)


def measure(file: Path, commands: Sequence[Command], rounds: int) -> None:
    """All commands in turn on one file, and their table."""
    figures: dict[str, list[Figure]] = {command.name: [] for command in commands}
    for turn in range(rounds + 1):
        for command in commands:
            figure = run(command, file)
            if turn:  # the first round warms the page cache
                figures[command.name].append(figure)
    base = [figure.seconds for figure in figures[YARDSTICK]]
    print(f"\n{file.suffix}, {file.stat().st_size / 1e9:.2f} GB, {rounds} rounds, medians")
    print(f"{'':36} {'seconds':>8} {'x readinto':>11} {'CPU s':>8} {'RssAnon MB':>11}")
    for name, runs in figures.items():
        seconds, peak = statistics.median(r.seconds for r in runs), max(r.anonymous for r in runs)
        ratio = statistics.median(r.seconds / b for r, b in zip(runs, base, strict=True))
        processor = statistics.median(r.processor for r in runs)
        print(f"{name:36} {seconds:8.3f} {ratio:11.2f} {processor:8.2f} {peak / 1e6:11.0f}")


def run(command: Command, file: Path) -> Figure:
    """A process, timed; a script that we wrote prints the time of its work itself."""
    copy = file.with_name("copy")
    words = [*command.words, str(file), *([str(copy)] if command.copies else [])]
    with tempfile.NamedTemporaryFile("r") as printed:
        start = time.perf_counter()
        process = subprocess.Popen(words, stdout=printed.fileno())
        peak = done = 0
        while not done:
            peak = max(peak, anonymous(process.pid))
            time.sleep(0.002)
            done, status, usage = os.wait4(process.pid, os.WNOHANG)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"{command.name} failed")
        copy.unlink(missing_ok=True)
        printed.seek(0)
        inner = command.words[:2] == PYTHON
        processor = usage.ru_utime + usage.ru_stime
        return Figure(float(printed.read()) if inner else seconds, processor, peak)


if __name__ == "__main__":
    main()

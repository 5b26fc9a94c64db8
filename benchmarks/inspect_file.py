"""What does it cost to look into a checkpoint, compare it and edit it, in time and memory?

`diff` compares the file with a copy of it, all of whose bytes are the same. `edit` writes a whole
copy with another learning rate, or changes the header of one of liontool's own safetensors in
place: that is the converted state, a third of the size. Yardsticks, run in turn with ours on the
same files in a warm page cache: `cp`, `cmp`, a plain loop of `readinto` over all bytes,
`torch.load`, and for safetensors `load_file` and sft-cli, if it can be started. Every figure is of
a whole process, its start and its imports included, but for those marked "the call". Memory is
RssAnon, sampled: max RSS counts the page cache too.

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
EDIT = (*LIONTOOL, "edit")


@dataclass(frozen=True)
class Command:
    """Something to be measured.

    Attributes:
        name: In the table.
        words: The command; names of `Files` in braces stand for their paths.
        containers: The files that it can take.
    """

    name: str
    words: tuple[str, ...]
    containers: tuple[str, ...] = (".pt", ".safetensors")


@dataclass(frozen=True)
class Files:
    """What the commands work on.

    Attributes:
        file: The checkpoint.
        twin: A copy of it.
        state: liontool's own safetensors.
        copy: Not there: for what a command writes.
    """

    file: Path
    twin: Path
    state: Path
    copy: Path


COMMANDS = (
    Command("liontool inspect", (*LIONTOOL, "inspect", "{file}")),
    Command("liontool inspect --tensors", (*LIONTOOL, "inspect", "--tensors", "{file}")),
    Command("liontool inspect --stats", (*LIONTOOL, "inspect", "--stats", "{file}")),
    Command("liontool inspect --stats, the call", (*PYTHON, STATISTICS, "{file}")),
    Command("liontool diff, identical", (*LIONTOOL, "diff", "{file}", "{twin}")),
    Command("liontool edit lr=x0.5", (*EDIT, "{file}", "lr=x0.5", "-o", "{copy}"), (".pt",)),
    Command("liontool edit lr=x0.5 --in-place", (*EDIT, "{state}", "lr=x0.5", "--in-place")),
    Command("readinto, the loop", (*PYTHON, READ, "{file}")),
    Command("cp", ("cp", "{file}", "{copy}")),
    Command("cmp", ("cmp", "{file}", "{twin}")),
    Command("torch.load, the call", (*PYTHON, TORCH_LOAD, "{file}"), (".pt",)),
    Command("load_file, the call", (*PYTHON, LOAD_FILE, "{file}"), (".safetensors",)),
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
            files = prepared(Path(folder), suffix)
            chosen = [command for command in commands if suffix in command.containers]
            measure(files, chosen, options.rounds)
            files.twin.unlink()


def prepared(folder: Path, suffix: str) -> Files:
    """The files of one container."""
    names = (f"run{suffix}", f"twin{suffix}", "state.safetensors", f"copy{suffix}")
    files = Files(*(folder / name for name in names))
    shutil.copyfile(files.file, files.twin)
    if not files.state.exists():
        convert = ("convert", str(folder / "run.pt"), "--lr-ratio", "5", "-o", str(files.state))
        subprocess.run([*LIONTOOL, *convert], check=True, stdout=subprocess.DEVNULL)
    return files


def sft(name: str) -> Sequence[Command]:
    """sft-cli, if it is there."""
    found = shutil.which(name)
    if found is None:
        print(f"sft-cli left out: there is no command '{name}'; see --sft")
        return ()
    return (Command("sft-cli info", (found, "info", "{file}"), (".safetensors",)),)


def measure(files: Files, commands: Sequence[Command], rounds: int) -> None:
    """All commands in turn on one container, and their table."""
    figures: dict[str, list[Figure]] = {command.name: [] for command in commands}
    for turn in range(rounds + 1):
        for command in commands:
            figure = run(command, files)
            if turn:  # the first round warms the page cache
                figures[command.name].append(figure)
    base = [figure.seconds for figure in figures[YARDSTICK]]
    size = files.file.stat().st_size / 1e9
    print(f"\n{files.file.suffix}, {size:.2f} GB, {rounds} rounds, medians")
    print(f"{'':36} {'seconds':>8} {'x readinto':>11} {'CPU s':>8} {'RssAnon MB':>11}")
    for name, runs in figures.items():
        seconds, peak = statistics.median(r.seconds for r in runs), max(r.anonymous for r in runs)
        ratio = statistics.median(r.seconds / b for r, b in zip(runs, base, strict=True))
        processor = statistics.median(r.processor for r in runs)
        print(f"{name:36} {seconds:8.3f} {ratio:11.2f} {processor:8.2f} {peak / 1e6:11.0f}")


def run(command: Command, files: Files) -> Figure:
    """A process, timed; a script that we wrote prints the time of its work itself."""
    paths = {f"{{{name}}}": str(path) for name, path in vars(files).items()}
    words = [paths.get(word, word) for word in command.words]
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
        files.copy.unlink(missing_ok=True)
        printed.seek(0)
        inner = command.words[:2] == PYTHON
        processor = usage.ru_utime + usage.ru_stime
        return Figure(float(printed.read()) if inner else seconds, processor, peak)


if __name__ == "__main__":
    main()

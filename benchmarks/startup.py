"""How long do `liontool --help` and `liontool inspect FILE` take to start?

Yardstick: a process that imports typer and prints one Rich table. Budget: 0.1 s more than that.
All are run in turn, so that a busy machine is as unfair to one as to the others; medians count.

    python benchmarks/startup.py [--runs 10]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BUDGET = 0.1

YARDSTICK = """
import typer
from rich.console import Console
from rich.table import Table

table = Table("name", "value")
table.add_row("answer", "42")
Console().print(table)
"""

MAKE_FILES = """
import sys
import torch
from safetensors.torch import save_file

model = torch.nn.Sequential(*(torch.nn.Linear(64, 64) for _ in range(100)))
optimizer = torch.optim.AdamW(model.parameters())
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)
model(torch.randn(8, 64)).square().mean().backward()
optimizer.step()
scheduler.step()
parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
torch.save({name: part.state_dict() for name, part in parts.items()}, sys.argv[1])
save_file(model.state_dict(), sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=10, help="runs of each command")
    runs = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        torch_file, weights = Path(folder, "adamw.ckpt"), Path(folder, "model.safetensors")
        subprocess.run([sys.executable, "-c", MAKE_FILES, torch_file, weights], check=True)
        liontool = [sys.executable, "-m", "liontool"]
        commands = {
            "import typer, print one table": [sys.executable, "-c", YARDSTICK],
            "liontool --help": [*liontool, "--help"],
            "liontool inspect adamw.ckpt": [*liontool, "inspect", str(torch_file)],
            "liontool inspect model.safetensors": [*liontool, "inspect", str(weights)],
        }
        report(medians(commands, runs, compiled_in(folder)))


def compiled_in(folder: str) -> dict[str, str]:
    """An environment in which modules are compiled once, as pip does it for installed packages."""
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return environment


def medians(
    commands: dict[str, list[str]], runs: int, environment: dict[str, str]
) -> dict[str, float]:
    """Median seconds of each command, run in turn, after one run of each that does not count."""
    times: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(runs + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, check=True, env=environment)
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken[1:]) for name, taken in times.items()}


def report(seconds: dict[str, float]) -> None:
    """Print each median, and how much more it is than the first."""
    yardstick = next(iter(seconds.values()))
    print(f"{'command':<36}{'seconds':>9}{'more':>9}   budget {BUDGET} s more")
    for name, taken in seconds.items():
        more = taken - yardstick
        verdict = "" if more == 0 else "kept" if more <= BUDGET else "MISSED"
        print(f"{name:<36}{taken:>9.3f}{more:>+9.3f}   {verdict}")


if __name__ == "__main__":
    main()

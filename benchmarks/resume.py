"""What does it cost to save a run while it trains, and to go on with it?

Each state is saved by everybody in turn. Yardsticks of the same round: a copy of the same bytes in
memory for the time that the training stands still, `cp` and fsync of the same bytes for the time
until they are on disk. Then training loops with saves are timed beside the same loop without, and
processes that go on with a checkpoint from their start to the end of their first step.

    python benchmarks/resume.py [--gigabytes 1] [--rounds 5] [--seconds 20] [--folder .] [--quick]
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.optim import Optimizer

from liontool.resume import Run
from liontool.resume.encoding import encode_state
from liontool.resume.host_copy import HostCopy
from liontool.resume.retention import Keep
from liontool.resume.saving import Saver
from liontool.resume.snapshot import Snapshot

ROWS = 4
MINUTE = 60.0

State = dict[str, Any]


@dataclass(frozen=True)
class Size:
    """A model of square layers, with AdamW."""

    name: str
    width: int
    layers: int

    def made(self) -> tuple[torch.nn.Module, Optimizer]:
        """The model, and its optimizer with its state."""
        torch.manual_seed(0)
        layers = [torch.nn.Linear(self.width, self.width) for _ in range(self.layers)]
        model = torch.nn.Sequential(*layers)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        train(model, optimizer, torch.ones(ROWS, self.width))
        return model, optimizer


def train(model: torch.nn.Module, optimizer: Optimizer, batch: Tensor) -> None:
    """One step."""
    model(batch).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def state_of(model: torch.nn.Module, optimizer: Optimizer) -> State:
    """What everybody saves."""
    return {"model": model.state_dict(), "optimizer": optimizer.state_dict()}


# --- who saves ----------------------------------------------------------------------------------


class Peer:
    """Somebody who saves a state.

    Args:
        folder: An empty one, for what is written.
    """

    name = ""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def save(self, state: State, step: int) -> None:
        """Return when the training may go on."""
        raise NotImplementedError

    def wait(self) -> None:
        """Return when the last save is as durable as it gets."""

    def clear(self) -> None:
        """Remove what was saved, so that the next save begins with new files as well."""
        for path in self.folder.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


class Ours(Peer):
    """What `Run` does at a step where a save is due."""

    name = "**liontool**"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._host = HostCopy()
        self._saver = Saver(folder, Keep(), saved_step=None, say=print)
        self._step = 0

    def save(self, state: State, step: int) -> None:
        self._saver.wait()
        self._step = step
        encoded = encode_state(state)
        body = self._host.take(encoded.tensors)
        self._saver.start(Snapshot(step, 0, None, body, encoded.tree, {}))

    def wait(self) -> None:
        while self._saver.busy and self._saver.saved_step != self._step:
            time.sleep(0.0005)

    def clear(self) -> None:
        self._saver.wait()
        super().clear()


class TorchSave(Peer):
    name = "torch.save"

    def save(self, state: State, step: int) -> None:
        torch.save(state, self.folder / "state.pt")


class TorchSaveFlushed(TorchSave):
    name = "torch.save + fsync"

    def save(self, state: State, step: int) -> None:
        super().save(state, step)
        flush(self.folder / "state.pt")


class Safetensors(Peer):
    name = "safetensors + fsync"

    def save(self, state: State, step: int) -> None:
        path = self.folder / "state.safetensors"
        save_file(dict(tensors_of(state)), path)
        flush(path)


class Distributed(Peer):
    name = "dcp.save"

    def save(self, state: State, step: int) -> None:
        save(state, checkpoint_id=self.folder / "state", no_dist=True)


class DistributedAsync(Peer):
    name = "dcp.async_save"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._future: Future[Any] | None = None

    def save(self, state: State, step: int) -> None:
        self.wait()
        future = async_save(state, checkpoint_id=self.folder / "state", no_dist=True)
        assert isinstance(future, Future)
        self._future = future

    def wait(self) -> None:
        if self._future is not None:
            self._future.result()


PEERS: tuple[type[Peer], ...] = (
    Ours, TorchSave, TorchSaveFlushed, Safetensors, Distributed, DistributedAsync,
)  # fmt: skip


def tensors_of(tree: Any, path: str = "") -> Iterable[tuple[str, Tensor]]:
    """Every tensor of a state, for a format that has nothing else."""
    if isinstance(tree, Tensor):
        yield path, tree
    elif isinstance(tree, dict):
        for key, value in tree.items():
            yield from tensors_of(value, f"{path}.{key}" if path else str(key))


def flush(path: Path) -> None:
    """Have a file on disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# --- a save -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cost:
    """Seconds that a save takes.

    Attributes:
        stall: Until the training goes on.
        total: Until the save is as durable as it gets.
    """

    stall: float
    total: float


def saves(size: Size, folder: Path, rounds: int) -> None:
    """Everybody saves one state, in turn, and the table of it."""
    state = state_of(*size.made())
    nbytes = sum(tensor.nbytes for _, tensor in tensors_of(state))
    peers = [peer(folder / peer.__name__) for peer in PEERS]
    copies = Copies(nbytes, folder)
    costs: dict[str, list[Cost]] = {}
    for turn in range(rounds + 1):
        found = {name: Cost(seconds, seconds) for name, seconds in copies.seconds().items()}
        for peer in peers:
            found[peer.name] = timed_save(peer, state, turn)
        if turn:  # memory and files are there from the first round
            for name, cost in found.items():
                costs.setdefault(name, []).append(cost)
    count = sum(1 for _ in tensors_of(state))
    print(f"\nA save of {nbytes / 1e6:,.1f} MB in {count} tensors, {rounds} rounds\n")
    print_saves(costs)
    for peer in peers:
        shutil.rmtree(peer.folder)
    copies.remove()


def timed_save(peer: Peer, state: State, step: int) -> Cost:
    os.sync()  # nobody pays for what another has left to be written
    start = time.perf_counter()
    peer.save(state, step)
    stall = time.perf_counter() - start
    peer.wait()
    cost = Cost(stall, time.perf_counter() - start)
    peer.clear()
    return cost


class Copies:
    """The yardsticks: the same number of bytes, in memory and on disk."""

    MEMORY = "a copy in memory"
    MEMMOVE = "memmove, one thread"
    DISK = "`cp` + fsync"

    def __init__(self, nbytes: int, folder: Path) -> None:
        self._source = torch.randint(0, 255, (nbytes,), dtype=torch.uint8)
        self._target = torch.zeros_like(self._source)
        self._file = folder / "bytes"
        self._file.write_bytes(self._source.numpy().data)

    def seconds(self) -> dict[str, float]:
        """Of each, by name."""
        self._copied().unlink(missing_ok=True)
        return {
            self.MEMORY: seconds(lambda: self._target.copy_(self._source)),
            self.MEMMOVE: seconds(
                lambda: ctypes.memmove(
                    self._target.data_ptr(), self._source.data_ptr(), self._source.nbytes
                )
            ),
            self.DISK: seconds(self._copy_file),
        }

    def remove(self) -> None:
        """Delete the files."""
        self._file.unlink()
        self._copied().unlink()

    def _copied(self) -> Path:
        return self._file.with_suffix(".copy")

    def _copy_file(self) -> None:
        subprocess.run(["cp", self._file, self._copied()], check=True)
        flush(self._copied())


def seconds(action: Callable[[], object]) -> float:
    os.sync()
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def print_saves(costs: Mapping[str, list[Cost]]) -> None:
    memory = [cost.stall for cost in costs[Copies.MEMORY]]
    disk = [cost.total for cost in costs[Copies.DISK]]
    print("| | stall, ms | x a copy in memory | until durable, ms | throughput x `cp` + fsync |")
    print("|---|---|---|---|---|")
    for name, found in costs.items():
        stall = statistics.median(cost.stall for cost in found)
        total = statistics.median(cost.total for cost in found)
        slower = median_ratio([cost.stall for cost in found], memory)
        faster = median_ratio(disk, [cost.total for cost in found])
        print(f"| {name} | {stall * 1e3:,.1f} | {slower:.2f} | {total * 1e3:,.1f} | {faster:.2f} |")


def median_ratio(values: list[float], base: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(values, base, strict=True))


# --- a training loop ----------------------------------------------------------------------------


def overhead(size: Size, folder: Path, rounds: int, window: float) -> None:
    """Training loops with one save in the middle, and with a save every ten steps."""
    steps = max(int(window / step_seconds(size)), 25)
    for every, scale in ((steps // 2 + 1, MINUTE), (10, None)):
        found: dict[str, list[float]] = {}
        for _ in range(rounds):
            for name, loop in loops(size, folder, steps, every).items():
                found.setdefault(name, []).append(loop())
        print_overhead(found, steps, every, scale)


def step_seconds(size: Size) -> float:
    model, optimizer = size.made()
    batch = torch.ones(ROWS, size.width)
    times = [seconds(lambda: train(model, optimizer, batch)) for _ in range(8)]
    return statistics.median(times)


def loops(size: Size, folder: Path, steps: int, every: int) -> dict[str, Callable[[], float]]:
    """The seconds of as many steps, by who saves."""
    found: dict[str, Callable[[], float]] = {
        "no saves": lambda: bare_loop(size, steps),
        "**liontool**, no saves": lambda: run_loop(size, folder, steps, 1 << 60),
        "**liontool**": lambda: run_loop(size, folder, steps, every),
    }
    for peer in PEERS[1:]:
        found[peer.name] = lambda peer=peer: peer_loop(size, folder, steps, every, peer)  # type: ignore[misc]
    return found


def bare_loop(size: Size, steps: int) -> float:
    model, optimizer = size.made()
    batch = torch.ones(ROWS, size.width)
    start = time.perf_counter()
    for _ in range(steps):
        train(model, optimizer, batch)
    return time.perf_counter() - start


def run_loop(size: Size, folder: Path, steps: int, every: int) -> float:
    """The loop with `Run`; what it does after the last step is not counted."""
    model, optimizer = size.made()
    batch = torch.ones(ROWS, size.width)
    elapsed = 0.0
    place = folder / "run"
    os.sync()
    with Run(place, model=model, optimizer=optimizer, steps=steps, save_every=every) as run:
        start = time.perf_counter()
        for _ in run:
            train(model, optimizer, batch)
            run.step()
            elapsed = time.perf_counter() - start
    shutil.rmtree(place)
    return elapsed


def peer_loop(size: Size, folder: Path, steps: int, every: int, kind: type[Peer]) -> float:
    model, optimizer = size.made()
    batch = torch.ones(ROWS, size.width)
    peer = kind(folder / kind.__name__)
    os.sync()
    start = time.perf_counter()
    for step in range(1, steps + 1):
        train(model, optimizer, batch)
        if step % every == 0:
            peer.save(state_of(model, optimizer), step)
    elapsed = time.perf_counter() - start
    peer.wait()
    shutil.rmtree(peer.folder)
    return elapsed


def print_overhead(
    found: Mapping[str, list[float]], steps: int, every: int, scale: float | None
) -> None:
    """The time that is lost: of a minute for one save, or of the loop's own time."""
    base = found["no saves"]
    per_step = statistics.median(base) / steps * 1e3
    how_often = "one save a minute" if scale else f"a save every {every} steps"
    print(f"\nTraining with {how_often}: {steps} steps of {per_step:,.2f} ms\n")
    print("| | lost, ms | overhead |")
    print("|---|---|---|")
    for name, values in found.items():
        lost = statistics.median(a - b for a, b in zip(values, base, strict=True))
        share = lost / (scale or statistics.median(base))
        print(f"| {name} | {lost * 1e3:,.0f} | {share:.2%} |")


# --- a restart ----------------------------------------------------------------------------------

RESTART = """
import json, sys, time
stamps = {}
def stamp(name): stamps[name] = time.time()
width, layers, kind, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
import torch
stamp("Python, torch")
if kind == "liontool":
    from liontool.resume import Run
stamp("other imports")
model = torch.nn.Sequential(*[torch.nn.Linear(width, width) for _ in range(layers)])
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
batch = torch.ones(4, width)
stamp("model")
def train():
    model(batch).square().mean().backward(); optimizer.step(); optimizer.zero_grad()
if kind == "liontool":
    run = Run(place, model=model, optimizer=optimizer, steps=1 << 30, save_every=1 << 60,
              say=lambda line: None)
elif kind == "torch.load":
    saved = torch.load(place, weights_only=True)
    model.load_state_dict(saved["model"]); optimizer.load_state_dict(saved["optimizer"])
    del saved
stamp("load")
if kind == "liontool":
    for _ in run:
        train(); run.step(); break
else:
    train()
stamp("first step")
if kind == "liontool":
    import pathlib
    from liontool.checkpoint.run_folder.checking import check
    newest = max(pathlib.Path(place).glob("step-*"))
    start = time.time(); check(newest); stamps["verifying"] = time.time() - start
print(json.dumps(stamps), flush=True)
import os; os._exit(0)
"""
PARTS = ("Python, torch", "other imports", "model", "load", "first step")


def recovery(size: Size, folder: Path, rounds: int) -> None:
    """From the start of a process to the end of its first step, and what takes how long."""
    model, optimizer = size.made()
    place, by_hand = folder / "run", folder / "state.pt"
    with Run(place, model=model, optimizer=optimizer, steps=1, save_every=1, say=print) as run:
        for _ in run:
            train(model, optimizer, torch.ones(ROWS, size.width))
            run.step()
    torch.save(state_of(model, optimizer), by_hand)
    kinds = {"liontool": place, "torch.load": by_hand, "nothing to load": by_hand}
    found: dict[str, list[dict[str, float]]] = {}
    for turn in range(rounds + 1):
        for kind, source in kinds.items():
            for state in ("cached", "from disk"):
                if state == "from disk":
                    forget(source)
                parts = restart(size, kind, source)
                if turn:
                    found.setdefault(f"{kind}, {state}", []).append(parts)
    print_recovery(found)
    shutil.rmtree(place)
    by_hand.unlink()


def forget(place: Path) -> None:
    """Have files no longer in memory."""
    for path in [place, *place.rglob("*")] if place.is_dir() else [place]:
        if path.is_file():
            flush(path)
            fd = os.open(path, os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def restart(size: Size, kind: str, place: Path) -> dict[str, float]:
    """Seconds of each part of a process."""
    start = time.time()
    command = [sys.executable, "-c", RESTART, str(size.width), str(size.layers), kind, str(place)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    stamps = json.loads(done.stdout.splitlines()[-1])
    edges = [start, *(stamps[part] for part in PARTS)]
    parts = {part: edges[i + 1] - edges[i] for i, part in enumerate(PARTS)}
    return {**parts, "all": edges[-1] - start, "verifying": stamps.get("verifying", 0.0)}


def print_recovery(found: Mapping[str, list[dict[str, float]]]) -> None:
    print("\nFrom the start of a process to the end of its first step, seconds\n")
    names = [*PARTS, "all", "verifying"]
    print(f"| | {' | '.join(PARTS)} | all | verifying alone |")
    print("|---" * (len(names) + 1) + "|")
    for kind, runs in found.items():
        medians = (statistics.median(run[name] for run in runs) for name in names)
        print(f"| {kind} | {' | '.join(f'{value:.2f}' for value in medians)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--gigabytes", type=float, default=1.0, help="size of the large state")
    parser.add_argument("--rounds", type=int, default=5, help="times that each is measured")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each training loop")
    parser.add_argument("--folder", type=Path, default=Path(), help="where the files go")
    parser.add_argument("--quick", action="store_true", help="small and once, to see that it runs")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.distributed")
    if options.quick:
        options.gigabytes, options.rounds, options.seconds = 0.02, 1, 0.2
    width = 512 if options.quick else 4096
    layers = max(round(options.gigabytes * 1e9 / 12 / width**2), 1)
    for size in (Size("large", width, layers), Size("small", 64, 8)):
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            print(f"\n### {size.name}: {size.layers} layers of {size.width} x {size.width}")
            saves(size, Path(folder), options.rounds)
            overhead(size, Path(folder), options.rounds, options.seconds)
            recovery(size, Path(folder), options.rounds)


if __name__ == "__main__":
    main()

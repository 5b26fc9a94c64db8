"""Trainers whose end is looked at: one process imports torch, each trainer is a fork of it.

Run as a script it takes a case as a line of JSON, forks a trainer, and says its number; "wait" says
how it ended. The trainer leaves as any script does: by the end of the interpreter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PATIENCE = 25.0
SLOW = 40.0
"""Seconds that a worker is busy with a sample when its trainer leaves."""


class Trainers:
    """The side of the tests.

    Args:
        folder: For the runs, and for what trainers say.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        root = Path(__file__).parent.parent
        paths = os.pathsep.join([str(root), str(root.parent), *sys.path])
        self._server = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
        )

    def start(self, **case: Any) -> Trainer:
        """A new trainer in a folder of its own."""
        self._count += 1
        folder = self._folder / str(self._count)
        folder.mkdir()
        pid = self.ask({"folder": str(folder), **case})
        return Trainer(self, folder, pid)

    def ask(self, what: Any) -> Any:
        """Send a line and read one."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(what) + "\n")
        self._server.stdin.flush()
        return json.loads(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._server.communicate()


class Trainer:
    """A trainer that runs."""

    def __init__(self, trainers: Trainers, folder: Path, pid: int) -> None:
        self._trainers = trainers
        self.folder = folder
        self.pid = pid

    def wait_for(self, word: str) -> None:
        """Wait until the trainer has said it."""
        deadline = time.monotonic() + PATIENCE
        while word not in self.said():
            assert time.monotonic() < deadline, f"never said {word}: {self.said()}\n{self.errors()}"
            time.sleep(0.01)

    def end(self) -> tuple[int, float]:
        """Exit code, negative for a signal, and the seconds until then."""
        begin = time.monotonic()
        return self._trainers.ask({"wait": self.pid}), time.monotonic() - begin

    def said(self) -> list[str]:
        """What it said."""
        path = self.folder / "said"
        return path.read_text().split() if path.exists() else []

    def errors(self) -> str:
        """What it wrote to stderr."""
        return (self.folder / "errors").read_text()

    def stepped(self) -> int:
        """Steps that were made."""
        return self.said().count("stepped")

    def steps(self) -> list[int]:
        """Steps that are saved."""
        return [int(path.name[5:]) for path in sorted((self.folder / "run").glob("step-*"))]


@contextmanager
def trainers(folder: Path) -> Iterator[Trainers]:
    """A server for the body."""
    made = Trainers(folder)
    try:
        yield made
    finally:
        made.close()


def serve() -> None:
    """Fork a trainer for each case; only a trainer returns before the input ends."""
    for line in sys.stdin:
        case = json.loads(line)
        if "wait" in case:
            print(json.dumps(_ended(case["wait"])), flush=True)
            continue
        pid = os.fork()
        if not pid:
            train(case)
            return
        print(json.dumps(pid), flush=True)


def _ended(pid: int) -> int | None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def train(case: dict[str, Any]) -> None:
    """A training script. It says "batch", "stepped" and so on, and does what the case wants."""
    import torch
    from torchdata.stateful_dataloader import StatefulDataLoader

    from liontool.checkpoint.system import SYSTEM
    from liontool.resume import Run, SampleSeeded, signals

    os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    folder = Path(case["folder"])
    errors = os.open(folder / "errors", os.O_WRONLY | os.O_CREAT)
    os.dup2(errors, 2)
    os.dup2(os.open(os.devnull, os.O_RDWR), 0)
    os.dup2(0, 1)
    said = os.open(folder / "said", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    signals._SAME_REQUEST = case.get("same_request", 5.0)
    if "write" in case:  # seconds that a save takes

        def write(fd: int, block: Any, write: Any = SYSTEM.write) -> int:
            say("writing")
            time.sleep(case["write"])
            return write(fd, block)

        SYSTEM.write = write

    def say(word: str) -> None:
        os.write(said, f"{word}\n".encode())

    class Slow(torch.utils.data.Dataset[Any]):
        def __len__(self) -> int:
            return 1000

        def __getitem__(self, index: int) -> torch.Tensor:
            if index >= case.get("slow_from", 4):
                say("slow")
                time.sleep(case.get("slow", SLOW))
            return torch.tensor([float(index)])

    def act(place: str) -> None:
        say(place)
        if case.get("at") == place:
            say("waiting")
            if case["does"] == "raise":
                raise RuntimeError("the body failed")
            if case["does"] == "exit":
                sys.exit(3)
            time.sleep(case.get("sleep", 1.0))

    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = None
    if case.get("workers") is not None:
        warnings.simplefilter("ignore")
        loader = StatefulDataLoader(SampleSeeded(Slow()), batch_size=1, num_workers=case["workers"])
    run = Run(
        folder / "run",
        model=model,
        optimizer=optimizer,
        loader=loader,
        steps=400,
        save_every=case.get("save_every", "1h"),
    )
    act("built")
    while not run.finished:
        for batch in run:
            act("batch")
            optimizer.zero_grad()
            model(torch.as_tensor(batch).float().expand(1, 2)).sum().backward()
            optimizer.step()
            run.step()
            act("stepped")
    run.close()


if __name__ == "__main__":
    import torch
    import torchdata.stateful_dataloader  # noqa: F401

    import liontool.resume.run  # noqa: F401

    torch.optim.SGD(torch.nn.Linear(1, 1).parameters())  # imports a good deal more
    serve()

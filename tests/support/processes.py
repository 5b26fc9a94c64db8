"""Work on several ranks at once: processes of one machine that speak through gloo.

They are forked from a server that has torch imported already, so a start takes tenths of a second.
"""

from __future__ import annotations

import io
import multiprocessing
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import torch
from torch import distributed

PRELOADED = [
    "torch",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint.state_dict",
    "torch._dynamo",
]


def on_ranks(count: int, work: Callable[..., Any], *args: Any, timeout: float = 120) -> list[Any]:
    """What `work(*args)` returns on each of `count` ranks of a process group.

    Args:
        count: How many processes.
        work: A function that can be imported by its name; tests' own modules cannot.
        args: Its arguments, the same on all ranks.
        timeout: Seconds for all of it.

    Raises:
        AssertionError: A rank raised, died or took too long; with its traceback.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with tempfile.TemporaryDirectory() as folder:
        pipes, processes = [], []
        for rank in range(count):
            here, there = context.Pipe(duplex=False)
            given = (rank, count, str(Path(folder) / "store"), there, work, args)
            processes.append(context.Process(target=_rank, args=given, daemon=True))
            processes[-1].start()
            there.close()
            pipes.append(here)
        try:
            return _gathered(pipes, time.monotonic() + timeout)
        finally:
            for process in processes:
                process.kill()
                process.join()


def _rank(
    rank: int, count: int, store: str, pipe: Connection, work: Callable[..., Any], args: Any
) -> None:
    torch.set_num_threads(1)
    try:
        distributed.init_process_group(
            "gloo", store=distributed.FileStore(store, count), rank=rank, world_size=count
        )
        answer = io.BytesIO()
        torch.save(work(*args), answer)
        pipe.send((True, answer.getvalue()))
        # The others may still speak to this one.
        distributed.barrier()
        distributed.destroy_process_group()
    except BaseException:
        pipe.send((False, traceback.format_exc()))
        raise SystemExit(1) from None


def _gathered(pipes: list[Connection], deadline: float) -> list[Any]:
    """The answers in the order of the ranks; the first failure ends the waiting."""
    answers: dict[int, Any] = {}
    while len(answers) < len(pipes):
        open_pipes = [pipe for rank, pipe in enumerate(pipes) if rank not in answers]
        ready = wait(open_pipes, max(0.0, deadline - time.monotonic()))
        assert ready, f"ranks {sorted(set(range(len(pipes))) - set(answers))} took too long"
        for pipe in ready:
            rank = pipes.index(pipe)
            answers[rank] = _answer(pipe, rank)
    return [answers[rank] for rank in range(len(pipes))]


def _answer(pipe: Any, rank: int) -> Any:
    try:
        well, answer = pipe.recv()
    except EOFError:
        raise AssertionError(f"rank {rank} died without a word") from None
    assert well, f"rank {rank} failed:\n{answer}"
    return torch.load(io.BytesIO(answer), weights_only=False)

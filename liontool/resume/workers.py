"""The end of loader workers that ignore SIGTERM: nobody else can end them without waiting for ever.

A loader that is left to itself joins each worker for five seconds and then sends SIGTERM; after
that multiprocessing waits without end when the interpreter exits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import active_children
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from time import monotonic
from typing import Any

from torch._C import _remove_worker_pids

from liontool.resume.signals import IgnoreSignals

_GRACE = 1.0


def shut_down(iterator: Any) -> None:
    """End the workers of a loader's iterator: asked first, killed after a second.

    Args:
        iterator: What `iter(loader)` made, or None; one without workers is left alone.
    """
    workers = getattr(iterator, "_workers", ())
    if not any(worker.is_alive() for worker in workers):
        return
    _forget(iterator)
    if not iterator._shutdown:
        _end_pinning(iterator)
        iterator._workers_done_event.set()
        for queue in iterator._index_queues:
            queue.put(None)
    _wait_or_kill(workers)
    iterator._shutdown_workers()  # closes the queues


def kill_workers(iterator: Any) -> None:
    """End the workers without asking; for a process that dies in the next moment."""
    for worker in getattr(iterator, "_workers", ()):
        _forget(iterator)
        worker.kill()


def _wait_or_kill(workers: Sequence[BaseProcess]) -> None:
    deadline = monotonic() + _GRACE
    alive = [worker for worker in workers if worker.is_alive()]
    while alive and (left := deadline - monotonic()) > 0:
        wait([worker.sentinel for worker in alive], timeout=left)
        alive = [worker for worker in alive if worker.is_alive()]
    for worker in alive:
        worker.kill()
        worker.join()


def _forget(iterator: Any) -> None:
    """Or torch would raise in the main thread for the death of each."""
    if iterator._worker_pids_set:
        _remove_worker_pids(id(iterator))
        iterator._worker_pids_set = False


def _end_pinning(iterator: Any) -> None:
    """The thread that pins batches goes first: a worker that is killed can leave half a batch."""
    if hasattr(iterator, "_pin_memory_thread"):
        iterator._pin_memory_thread_done_event.set()
        iterator._worker_result_queue.put((None, None))
        iterator._pin_memory_thread.join(_GRACE)


@contextmanager
def killed_on_error() -> Iterator[None]:
    """Workers that were started in the body are killed if it fails: nobody knows of them then."""
    earlier = set(active_children())
    try:
        yield
    except BaseException:
        for worker in set(active_children()) - earlier:
            with suppress(RuntimeError):  # torch raises for the first worker that is killed
                worker.kill()
                worker.join()
        raise


@contextmanager
def ignoring_signals(loader: Any) -> Iterator[None]:
    """The loader's workers leave signals to the run, in the body."""
    if loader is None:
        yield
        return
    earlier = loader.worker_init_fn
    loader.worker_init_fn = IgnoreSignals(earlier)
    try:
        yield
    finally:
        loader.worker_init_fn = earlier

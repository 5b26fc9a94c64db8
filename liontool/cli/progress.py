"""A progress bar for long work: on stderr, on a terminal, after the first second."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PATIENCE = 1.0
"""Seconds of work before a bar is worth showing."""


@contextmanager
def copying() -> Iterator[Callable[[int, int], None] | None]:
    """Give the callback for `progress=`; None where nobody watches.

    The bar disappears when the context ends, however it ends.
    """
    if not sys.stderr.isatty():
        yield None
        return
    bar = _Bar()
    try:
        yield bar.show
    finally:
        bar.close()


class _Bar:
    def __init__(self) -> None:
        self._started: float | None = None
        self._progress: Any = None
        self._task: Any = None

    def show(self, done: int, total: int) -> None:
        if self._started is None:
            self._started = time.monotonic()
        if self._progress is None and time.monotonic() - self._started >= PATIENCE:
            self._open(total)
        if self._progress is not None:
            self._progress.update(self._task, completed=done, total=total)

    def close(self) -> None:
        if self._progress is not None:
            self._progress.stop()

    def _open(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn

        columns = ("working", BarColumn(), DownloadColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._progress.add_task("", total=total)
        self._progress.start()

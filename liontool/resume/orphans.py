"""Loader workers end with their run, however that ends.

torch's own watch begins some milliseconds after a worker does: one whose run dies before that would
wait for work for ever. The system's watch has no such gap, and does not take five seconds.
"""

from __future__ import annotations

import ctypes
import os
import signal
import threading
from multiprocessing import current_process
from multiprocessing.context import ForkServerProcess

_PR_SET_PDEATHSIG = 1


class Tie:
    """Ties workers to the process that makes this; called in the worker."""

    def __init__(self) -> None:
        self._run = os.getpid()
        # The system watches the thread that forks; only the main one surely lives on.
        self._holds = threading.current_thread() is threading.main_thread()

    def __call__(self) -> None:
        """End with the run, or now if it has ended."""
        if not self._holds or isinstance(current_process(), ForkServerProcess):
            return  # the parent of the latter is the server
        prctl = getattr(ctypes.CDLL(None), "prctl", None)  # only Linux has it
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._run:
            os._exit(1)

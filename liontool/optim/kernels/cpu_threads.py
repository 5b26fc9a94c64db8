"""How many threads a CPU kernel may use, and torch's own pool of them."""

from __future__ import annotations

import ctypes
import functools
import os

import torch

_forked = False


def _after_fork() -> None:
    # The pool's threads do not live in a child, and OpenMP waits for them forever.
    global _forked
    _forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def count() -> int:
    """torch's number of threads; one where there is no pool, or in a forked child."""
    return 1 if _forked or pool() is None else torch.get_num_threads()


@functools.cache
def pool() -> int | None:
    """The address of GOMP_parallel in the OpenMP library that torch has loaded, or None.

    libgomp and LLVM's libomp both have it. A library of our own beside torch's would fight with it
    for the cores.
    """
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):  # not loaded; not to be asked on Windows
        return None

"""Python's cyclic garbage collector, and when it is of no use."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused_collector() -> Iterator[None]:
    """No cyclic garbage is looked for in this context, or in the function that it decorates.

    A checkpoint with many tensors becomes millions of objects that all stay. The collector would
    walk them again and again as they grow, which takes as long as to make them, and find nothing.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()

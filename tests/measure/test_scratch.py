"""Memory that a thread uses again."""

from __future__ import annotations

import threading

import numpy as np

from liontool.measure.scratch import scratch


def test_the_same_name_has_the_same_memory() -> None:
    """A second call gets the memory of the first, of another type too; other names do not."""
    first = scratch("one", 8, np.float64)
    assert np.shares_memory(first, scratch("one", 16, np.uint8))
    assert not np.shares_memory(first, scratch("two", 8, np.float64))


def test_more_than_before() -> None:
    """What asks for more gets more."""
    scratch("grows", 4, np.uint8)
    found = scratch("grows", 100, np.float32)
    assert (found.shape, found.dtype) == ((100,), np.float32)


def test_threads_have_their_own() -> None:
    """What one thread computes no other one touches."""
    mine, others = scratch("one", 8, np.float64), []
    thread = threading.Thread(target=lambda: others.append(scratch("one", 8, np.float64)))
    thread.start()
    thread.join()
    assert not np.shares_memory(mine, others[0])

"""Memory that a thread makes once and uses for every block.

A fresh array of some hundred kB is new pages from the system each time, and these take longer than
what is computed in them.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

    Array = NDArray[Any]


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Array] = {}


_ROOMS = _Rooms()


def scratch(name: str, count: int, dtype: DTypeLike) -> Array:
    """A flat array with what was last left in it.

    Args:
        name: What it is for; the next call with this name in this thread takes its memory.
        count: How many elements.
        dtype: Of which type.
    """
    import numpy as np

    size = count * np.dtype(dtype).itemsize
    room = _ROOMS.by_name.get(name)
    if room is None or len(room) < size:
        room = _ROOMS.by_name[name] = np.empty(size, np.uint8)
    return room[:size].view(dtype)

"""Files whose pickles have no known length are read through a mapping: its pages are not our memory."""

from __future__ import annotations

import mmap
from pathlib import Path


def mapped(path: Path) -> memoryview:
    """The bytes of a file that is not empty; unmapped when the last view of them is gone."""
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))

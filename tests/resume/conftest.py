"""What the tests of runs share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.crash_part import memory_folder


@pytest.fixture
def memory() -> Iterator[Path]:
    """An empty folder in memory, where a flush costs nothing."""
    folder = memory_folder()
    yield folder
    shutil.rmtree(folder)

"""A checkpoint with a wrong bit is refused and named, and the one before it is used."""

from __future__ import annotations

from pathlib import Path

import pytest

from crash.bit_flips import all_flips
from support.crash_part import Part
from support.crash_saves import save


@pytest.fixture
def newest(memory: Path) -> Path:
    """The second of two checkpoints."""
    save(memory, 1, size=3000)
    return save(memory, 2, size=3000)


def test_every_wrong_bit_and_every_missing_end_is_noticed(newest: Path) -> None:
    """All bits and all lengths of the small files and of the header, and some of the tensors."""
    part = Part("bit flips", seed=6)
    all_flips(part, newest, share=1, payload=1000)
    assert part.problems == []
    assert part.counts["bits of the small files"] > 5000
    assert part.counts["cut off"] > 500
    assert part.counts["bits of the tensors"] == 1000
    assert part.counts["fell back to the one before"] > 100

"""The pass of `statistics` over both moments of a parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint import frameworks
from liontool.checkpoint.source import open_source
from liontool.inspect.listing import STATE, Item
from liontool.inspect.measuring import Measured, measured
from liontool.measure import passes

ROWS, STILL = 40, 24


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_holes_count_as_the_zeros_that_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    """Elements of holes count as those that were read: a complex one as two."""
    found = _measured(tmp_path, dtype)
    monkeypatch.setattr(passes, "_parts", _with_holes)
    holey = _measured(tmp_path, dtype)
    ((read,),), ((unread,),) = found.updates.values(), holey.updates.values()
    assert unread.elements == read.elements == ROWS * 8 * (1 + dtype.is_complex)
    assert (unread.zero, unread.stale) == (read.zero, read.stale)
    assert unread.zero == STILL / ROWS
    assert list(holey.values.values()) == list(found.values.values())


def _measured(folder: Path, dtype: torch.dtype) -> Measured:
    """Moments whose first rows are zero."""
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.ones(ROWS, 8, dtype=dtype))
    optimizer = torch.optim.AdamW([weight])
    weight.grad = torch.randn_like(weight)
    weight.grad[:STILL] = 0
    optimizer.step()
    torch.save(optimizer.state_dict(), folder / "o.pt")
    _, checkpoint = frameworks.find(open_source(folder / "o.pt"))
    (slot,) = checkpoint.optimizers[0].slots.values()
    moments = [(name, one) for name, one in slot.tensors() if name != "step"]
    items = [Item(name, name, STATE, one, "0", name, 0, 0) for name, one in moments]
    return measured(checkpoint, items, {}, None)


def _with_holes(job: Any, files: Any) -> list[tuple[int, int, bool]]:
    """The rows of zeros as a file system tells of them that never wrote them."""
    return [(0, STILL * 8, True), (STILL * 8, ROWS * 8, False)]

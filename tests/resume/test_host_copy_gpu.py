"""The copy of a state that lies on a GPU."""

from __future__ import annotations

import pytest
import torch

from liontool.resume.host_copy import HostCopy

pytestmark = pytest.mark.gpu


def test_tensors_of_a_gpu_arrive_in_pinned_memory() -> None:
    """What a kernel still computes when `take` is called is in the body when it returns."""
    made, copy = torch.zeros(1 << 24, device="cuda"), HostCopy()
    tensors = {"large": made, "turned": torch.arange(12.0, device="cuda").view(3, 4).T}
    copy.prepare(tensors)
    for count in range(1, 4):
        made.add_(1)
        data = torch.frombuffer(copy.take(tensors).data, dtype=torch.float32)
        assert data.is_pinned()
        assert data[: 1 << 24].eq(count).all()
        assert data[1 << 24 :].equal(tensors["turned"].cpu().contiguous().flatten())


def test_a_state_on_both_sides() -> None:
    """Tensors of the CPU beside those of a GPU: a step count beside its moments."""
    tensors = {"moment": torch.full((7,), 3.0, device="cuda"), "step": torch.tensor(5.0)}
    data = torch.frombuffer(HostCopy().take(tensors).data, dtype=torch.float32)
    assert data.tolist() == [3.0] * 7 + [5.0]


def test_a_state_that_moves_to_a_gpu_gets_other_memory() -> None:
    """What was prepared for the CPU is exchanged for memory that a GPU writes to quickly."""
    copy, tensor = HostCopy(), torch.ones(5)
    copy.prepare({"x": tensor})
    data = torch.frombuffer(copy.take({"x": tensor.cuda()}).data, dtype=torch.float32)
    assert data.is_pinned()
    assert data.tolist() == [1.0] * 5

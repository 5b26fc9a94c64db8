"""The objects of tensors are asked for before Python reads them, wherever they are by then."""

from __future__ import annotations

from array import array

import pytest
import torch

from liontool.optim.kernels import cpu_library, cpu_objects

pytestmark = pytest.mark.skipif(
    cpu_library.why_none() is not None, reason=str(cpu_library.why_none())
)


def test_all_that_is_read_of_a_tensor() -> None:
    """The object in Python and torch's structs behind it are fetched."""
    tensor = torch.ones(3)
    lines = cpu_objects.Objects([tensor])._lines
    wanted = {id(tensor), tensor._cdata, tensor.untyped_storage()._cdata}
    assert wanted <= set(lines)
    assert len(lines) == 6


def test_places_where_nothing_is() -> None:
    """Tensors that are gone, and places that never were, are no error and change nothing."""
    kept = torch.ones(3)
    objects = cpu_objects.Objects([kept, *(torch.zeros(2**20) for _ in range(3))])
    objects._lines.extend(array("Q", [0, 1, 2**46, 2**64 - 64]))
    objects.fetch()
    assert kept.tolist() == [1.0] * 3

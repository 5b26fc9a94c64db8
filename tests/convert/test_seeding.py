"""The first momentum: scaled, zeros, or without its stale elements."""

from __future__ import annotations

import pytest
import torch

from liontool.convert import seeding
from liontool.measure import seed_scale
from support.torch_models import ref, tensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_scaled_is_rounded_once(dtype):
    """Scaling computes in float32 or better and rounds once."""
    moment = torch.randn(7, 11, dtype=torch.float64).to(dtype)
    found = tensor(seeding.scaled(ref(moment), 0.309))
    wide = moment.double() if dtype == torch.float64 else moment.float()
    assert torch.equal(found, (wide * 0.309).to(dtype))


def test_scaled_complex():
    """A complex moment is scaled as a pair of reals."""
    moment = torch.randn(5, dtype=torch.complex64)
    torch.testing.assert_close(tensor(seeding.scaled(ref(moment), 0.5)), moment / 2)


def test_scale_factor():
    """Adam's bias correction counts below step 50 only."""
    kappa = seed_scale.kappa(0.9, 0.99)
    assert seed_scale.scale_factor(0.9, 10, 0.99) == pytest.approx(kappa / (1 - 0.9**10))
    assert seed_scale.scale_factor(0.9, 50, 0.99) == kappa
    assert seed_scale.scale_factor(0.9, None, 0.99) == kappa


@pytest.mark.parametrize("shape", [(3, 4), (), (0, 5), (600, 1000)], ids=str)
def test_zeros(shape):
    """Zeros have dtype and shape of what they stand for, also over several blocks."""
    moment = ref(torch.ones(shape, dtype=torch.float64))
    found = seeding.zeros(moment)
    assert torch.equal(tensor(found), torch.zeros(shape, dtype=torch.float64))
    assert tensor(seeding.zeros(moment, (1,))).tolist() == [0.0]


def test_stale_elements_are_zeroed():
    """Elements that AdamW moved by less than 1e-4 of its lr become zero, no others."""
    first = torch.tensor([1.0, 1e-5, -1e-5, 0.0, 1e-3, -2e-4, float("nan"), 3e-9])
    second = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1e-16])
    found = tensor(seeding.without_stale(ref(first), (ref(second), 1.0, 1.0, 0.0)))
    expected = [1.0, 0.0, 0.0, 0.0, first[4].item(), first[5].item(), None, first[7].item()]
    assert found.isnan().tolist() == [item is None for item in expected]
    assert [a for a, b in zip(found.tolist(), expected, strict=True) if b is not None] == [
        item for item in expected if item is not None
    ]


def test_stale_takes_bias_and_eps_into_account():
    """The update is Adam's own, with bias correction and eps."""
    first, second = ref(torch.tensor([1e-4])), ref(torch.tensor([1.0]))
    assert tensor(seeding.without_stale(first, (second, 0.5, 1.0, 0.0))) != 0
    assert tensor(seeding.without_stale(first, (second, 1.0, 0.5, 0.0))) == 0
    assert tensor(seeding.without_stale(first, (second, 1.0, 1.0, 0.1))) == 0

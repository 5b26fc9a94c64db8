"""bfloat16 weights in the kernels: split and stochastic rounding give the bits of the loop."""

from __future__ import annotations

import pytest
import torch

from liontool.optim import reference, rounding
from support import kernels
from support.kernels import DEVICE, EDGES, by_the_loop, drawn, entry, hypers

pytestmark = kernels.marks

BF16 = (torch.bfloat16,) * 3


def plan_of(entries):
    from liontool.optim.kernels.triton_plan import Plan, Tile

    return Plan(entries, tile=Tile(kernels.CHUNK, kernels.BLOCK))


@pytest.mark.parametrize("shift", [0, 1])
def test_split_at_every_size(shift):
    """Weights and residuals are those of the loop over several steps."""
    torch.manual_seed(0)
    cases = [drawn(numel, BF16, shift) for numel in EDGES]
    residuals = [torch.zeros_like(case.param, dtype=torch.int16) for case in cases]
    pairs = list(zip(cases, residuals, strict=True))
    plan = plan_of([entry(case, residual=low) for case, low in pairs])
    for _ in range(3):
        plan.step([case.grad for case in cases], [hypers(rounding="split")])
    expected = split_by_the_loop(shift)
    kernels.assert_equal(cases, expected)
    for low, want in zip(residuals, expected, strict=True):
        kernels.assert_same(low, want["residual"], "residual")


def split_by_the_loop(shift):
    """Three steps of the definition."""
    torch.manual_seed(0)
    factors = reference.coefficients(1e-3, 0.1, (0.9, 0.99))
    result = []
    for numel in EDGES:
        case = drawn(numel, BF16, shift)
        hi, exp_avg = case.param.cpu(), case.exp_avg.cpu()
        lo = torch.zeros_like(hi, dtype=torch.int16)
        for _ in range(3):
            wide = rounding.combined(hi, lo)
            wide, new = reference.updated(
                wide, case.grad.cpu().float(), exp_avg.float(), 1e-3, factors
            )
            (hi, lo), exp_avg = rounding.split(wide), new.bfloat16()
        result.append({"param": hi, "exp_avg": exp_avg, "residual": lo})
    return result


def test_split_of_hard_values():
    """Residuals that do not belong to their weight, infinities and the largest number."""
    hi = torch.tensor(
        [0x0000, -0x8000, 0x3F80, 0x7F7F, 0x7F80, -0x80, 0x7FC0, 1], dtype=torch.int16
    )
    lo = torch.tensor([-0x8000, -1, 0, 1, 0x7FFF], dtype=torch.int16)
    hi, lo = torch.cartesian_prod(hi, lo).T.contiguous()
    param = hi.clone().view(torch.bfloat16).to(DEVICE)
    residual = lo.clone().to(DEVICE)
    zeros = torch.zeros_like(param)
    plan = plan_of([entry(kernels.Case(param, zeros, zeros.clone(), []), residual=residual)])
    plan.step([zeros], [hypers(rounding="split", weight_decay=0.0)])
    want_hi, want_lo = rounding.split(rounding.combined(hi.view(torch.bfloat16), lo) * 1.0)
    kernels.assert_same(param, want_hi, "weights")
    kernels.assert_same(residual, want_lo, "residuals")


@pytest.mark.parametrize("shift", [0, 1])
def test_stochastic_at_every_size(shift):
    """The noise of an element depends on seed, step, ordinal and its index as in the loop."""
    torch.manual_seed(0)
    cases = [drawn(numel, BF16, shift) for numel in EDGES]
    options = {"rounding": "stochastic", "seed": 2**33 + 5, "step": 2**32 + 11}
    expected = by_the_loop(cases, **options)
    plan = plan_of([entry(case, ordinal=place) for place, case in enumerate(cases)])
    plan.step([case.grad for case in cases], [hypers(**options)])
    kernels.assert_equal(cases, expected)


def test_stochastic_of_a_shard():
    """A shard is rounded like its part of the whole, beyond 2**32 elements too."""
    torch.manual_seed(0)
    offset = 2**32 - 300
    case = drawn(1000, BF16)
    key = rounding.key(7, 4, 9)
    factors = reference.coefficients(1e-3, 0.1, (0.9, 0.99))
    wide, exp_avg = reference.updated(*(tensor.cpu().float() for tensor in case[:3]), 1e-3, factors)
    index = torch.arange(offset, offset + 1000)
    expected = {"param": rounding.stochastic(wide, key, index), "exp_avg": exp_avg.bfloat16()}
    plan = plan_of([entry(case, ordinal=9, offset=offset, whole=2**40)])
    plan.step([case.grad], [hypers(rounding="stochastic", seed=7, step=3)])
    kernels.assert_equal([case], [expected])


@pytest.mark.parametrize("kind", ["split", "stochastic"])
def test_other_dtypes_are_rounded_to_nearest(kind):
    """The options of bfloat16 weights leave float32 alone."""
    torch.manual_seed(0)
    cases = [drawn(100)]
    expected = by_the_loop(cases, rounding=kind)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers(rounding=kind)]
    )
    kernels.assert_equal(cases, expected)

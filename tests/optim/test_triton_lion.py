"""Lion in one launch equals the loop bit for bit: sizes, dtypes, places in memory, values."""

from __future__ import annotations

from itertools import product

import pytest
import torch

from support import kernels
from support.kernels import BLOCK, CHUNK, DEVICE, EDGES, by_the_loop, drawn, entry, hypers

pytestmark = kernels.marks

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
NAMES = {F32: "fp32", BF16: "bf16", F16: "fp16"}


def plan_of(entries):
    from liontool.optim.kernels.triton_plan import Plan, Tile

    return Plan(entries, tile=Tile(CHUNK, BLOCK))


@pytest.mark.parametrize("shift", [0, 1, 3])
@pytest.mark.parametrize(
    "dtypes",
    [
        *((dtype,) * 3 for dtype in (F32, BF16, F16)),
        (F32, F32, BF16),
        (BF16, BF16, F32),
        (F16, F16, F32),
    ],
    ids=lambda dtypes: "-".join(NAMES[dtype] for dtype in dtypes),
)
def test_every_size_dtype_and_place(dtypes, shift):
    """Sizes around pieces, chunks and nothing; nothing beside the tensors is touched."""
    torch.manual_seed(0)
    cases = [drawn(numel, dtypes, shift) for numel in EDGES]
    expected = by_the_loop(cases)
    plan_of([entry(case) for case in cases]).step([case.grad for case in cases], [hypers()])
    kernels.assert_equal(cases, expected)


def test_gradients_of_another_dtype():
    """A bfloat16 gradient of float32 weights counts as its float32 value."""
    torch.manual_seed(0)
    cases = [drawn(numel, (F32, BF16, F32)) for numel in EDGES]
    expected = by_the_loop(cases)
    plan_of([entry(case) for case in cases]).step([case.grad for case in cases], [hypers()])
    kernels.assert_equal(cases, expected)


@pytest.mark.parametrize("options", [{}, {"agreement": "tensor"}], ids=["lion", "lion_sf"])
def test_the_chunks_of_every_day(options):
    """Sizes around the chunks that users get."""
    from liontool.optim.kernels.triton_plan import Plan, Tile

    torch.manual_seed(0)
    chunk = Tile().chunk
    cases = [drawn(numel) for numel in (chunk - 1, chunk, chunk + 1, 2 * chunk + 1040)]
    expected = by_the_loop(cases, **options)
    Plan([entry(case) for case in cases]).step([case.grad for case in cases], [hypers(**options)])
    kernels.assert_equal(cases, expected)


def test_all_kinds_in_one_step():
    """Tensors of all dtypes, aligned and not, share a step."""
    torch.manual_seed(0)
    dtypes = [(F32,) * 3, (BF16,) * 3, (F32, F32, BF16), (BF16, BF16, F32)]
    cases = [drawn(100 + shift, types, shift) for types, shift in product(dtypes, (0, 1))]
    expected = [by_the_loop([case])[0] for case in cases]
    plan_of([entry(case) for case in cases]).step([case.grad for case in cases], [hypers()])
    kernels.assert_equal(cases, expected)


def test_many_steps():
    """Momentum, decay and update go on exactly over steps."""
    torch.manual_seed(0)
    case = drawn(1003)
    plan = plan_of([entry(case)])
    for _ in range(4):
        case.grad.normal_()
        expected = by_the_loop([case])
        plan.step([case.grad], [hypers()])
        kernels.assert_equal([case], expected)


@pytest.mark.parametrize("dtype", [F32, BF16])
def test_hard_values(dtype):
    """Zeros, subnormals, infinities and NaN in every pairing give what the loop gives."""
    tiny = torch.finfo(dtype).smallest_normal
    values = [0.0, -0.0, tiny / 4, -tiny, 1e-3, -1.0, 3e38, -3e38, torch.inf, -torch.inf, torch.nan]
    grid = torch.cartesian_prod(*[torch.tensor(values, dtype=dtype)] * 3).T.to(DEVICE)
    param, grad, exp_avg = (column.contiguous() for column in grid)
    case = kernels.Case(param, grad, exp_avg, [])
    expected = by_the_loop([case])
    plan_of([entry(case)]).step([grad], [hypers()])
    kernels.assert_equal([case], expected)


@pytest.mark.parametrize("dtype", [BF16, F16])
def test_rounding_to_nearest(dtype):
    """Halves go to the even neighbour, what is too large to infinity, as in the loop."""
    bits = torch.arange(-(2**31), 2**31, 2**20 + 2**12, dtype=torch.int64).to(torch.int32)
    grad = torch.cat([bits.view(F32), bits.bitwise_and(-(2**12)).view(F32)]).to(DEVICE)
    case = kernels.Case(torch.zeros_like(grad), grad, torch.zeros_like(grad, dtype=dtype), [])
    expected = by_the_loop([case], betas=(0.9, 0.0))
    plan_of([entry(case)]).step([grad], [hypers(betas=(0.9, 0.0))])
    kernels.assert_equal([case], expected)


def test_maximize():
    """Going up is going down with the opposite gradient."""
    torch.manual_seed(0)
    cases = [drawn(100), drawn(17)]
    expected = by_the_loop(cases, maximize=True)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers(maximize=True)]
    )
    kernels.assert_equal(cases, expected)


def test_horizon():
    """A momentum that starts over averages as the loop's does."""
    torch.manual_seed(0)
    for step in (0, 7, 10_000):
        cases = [drawn(100)]
        expected = by_the_loop(cases, horizon=3.5, step=step)
        plan = plan_of([entry(case) for case in cases])
        plan.step([cases[0].grad], [hypers(horizon=3.5, step=step)])
        kernels.assert_equal(cases, expected)


def test_groups_with_numbers_of_their_own():
    """Tensors of several groups share a launch, each with its lr, decay and betas."""
    torch.manual_seed(0)
    cases = [drawn(numel) for numel in (20, 600, 33, 16)]
    own = [
        {"lr": 1e-2, "weight_decay": 0.0},
        {"betas": (0.5, 0.75)},
        {"lr": 3e-4, "maximize": True},
    ]
    members = [0, 1, 2, 1]
    expected = by_the_loop(cases, groups=members, group_options=own)
    plan = plan_of([entry(case, group=group) for case, group in zip(cases, members, strict=True)])
    plan.step([case.grad for case in cases], [hypers(**each) for each in own])
    kernels.assert_equal(cases, expected)

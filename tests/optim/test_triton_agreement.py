"""LionSF and caution in two passes equal the loop bit for bit."""

from __future__ import annotations

import pytest
import torch

from support import kernels
from support.kernels import EDGES, by_the_loop, drawn, entry, hypers

pytestmark = [*kernels.marks, pytest.mark.usefixtures("poisoned")]
poisoned = kernels.poisoned

F32, BF16 = torch.float32, torch.bfloat16
AGREEMENTS = ["tensor", "tensor_signed", "group", "group_signed"]


def plan_of(entries):
    from liontool.optim.kernels.triton_plan import Plan, Tile

    return Plan(entries, tile=Tile(kernels.CHUNK, kernels.BLOCK))


def compare(cases, members=None, own=None, **options):
    """A step of the plan and of the loop, with some gradients zero."""
    for case in cases:
        case.grad[::7] = 0
    expected = by_the_loop(cases, groups=members, group_options=own, **with_factor(options))
    groups = members or [0] * len(cases)
    plan = plan_of([entry(case, group=group) for case, group in zip(cases, groups, strict=True)])
    of_groups = [hypers(**{**options, **each}) for each in own or [{}]]
    plan.step([case.grad for case in cases], of_groups)
    kernels.assert_equal(cases, expected)


def with_factor(options):
    """Options of a plan as the optimizers know them."""
    options = dict(options)
    cautious = options.pop("cautious", False)
    return {**options, "cautious_factor": 0.0} if cautious else options


@pytest.mark.parametrize("agreement", AGREEMENTS)
@pytest.mark.parametrize("dtype", [F32, BF16], ids=["fp32", "bf16"])
def test_lion_sf_at_every_size(dtype, agreement):
    """Counts and scales of tensors and of the group, the marks of the last few elements too."""
    torch.manual_seed(0)
    compare([drawn(numel, (dtype,) * 3) for numel in EDGES], agreement=agreement)


@pytest.mark.parametrize(
    "dtypes",
    [(F32, F32, BF16), (BF16, BF16, F32), (torch.float16,) * 3],
    ids=["m16", "m32", "fp16"],
)
def test_lion_sf_of_mixed_dtypes(dtypes):
    """What one pass packs by four the other may read by eight."""
    torch.manual_seed(0)
    compare([drawn(numel, dtypes, shift=1) for numel in EDGES], agreement="tensor")
    compare([drawn(numel, dtypes) for numel in EDGES], agreement="tensor")


@pytest.mark.parametrize("agreement", [None, "tensor", "group_signed"])
def test_caution(agreement):
    """Updates against their gradient are left out, the others are larger for it."""
    torch.manual_seed(0)
    options = {} if agreement is None else {"agreement": agreement}
    compare([drawn(numel) for numel in EDGES], cautious=True, **options)


@pytest.mark.parametrize("pow", [0.5, 2.0, 1.3])
@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_powers_of_the_scale(agreement, pow):
    """Other exponents than 1 come from torch, between the passes."""
    torch.manual_seed(0)
    compare([drawn(600), drawn(0), drawn(77)], agreement=agreement, pow=pow)


def test_powers_with_caution():
    """Both factors together are rounded once."""
    torch.manual_seed(0)
    compare([drawn(600), drawn(77)], agreement="tensor", pow=2.0, cautious=True)


def test_groups_of_several_kinds():
    """Each group agrees in its own way; one launch counts for all alike."""
    torch.manual_seed(0)
    cases = [drawn(numel) for numel in (100, 700, 33, 16, 250)]
    own = [
        {"agreement": "group", "lr": 1e-2},
        {"agreement": "tensor_signed"},
        {"agreement": "group_signed", "pow": 2.0, "maximize": True},
    ]
    compare(cases, members=[0, 1, 2, 0, 2], own=own, agreement="tensor")


@pytest.mark.parametrize("cautious", [False, True])
def test_nan_and_infinity(cautious):
    """They pass through the marks: weights become NaN as in the loop, and nothing else does."""
    torch.manual_seed(0)
    case = drawn(200)
    case.grad[3], case.grad[50], case.grad[199] = torch.nan, torch.inf, -torch.inf
    case.exp_avg[7], case.exp_avg[8] = torch.nan, torch.inf
    compare([case], agreement="tensor", cautious=cautious)


@pytest.mark.parametrize("rounding", ["stochastic", "nearest"])
def test_bfloat16_rounding_of_lion_sf(rounding):
    """The second pass rounds as the only one does."""
    torch.manual_seed(0)
    compare([drawn(1000, (BF16,) * 3)], agreement="tensor", rounding=rounding)


def test_split_rounding_of_lion_sf():
    """The second pass keeps what bfloat16 has no room for."""
    torch.manual_seed(0)
    case = drawn(1000, (BF16,) * 3)
    expected = by_the_loop([case], agreement="tensor", rounding="split")
    residual = torch.zeros_like(case.param, dtype=torch.int16)
    plan = plan_of([entry(case, residual=residual)])
    plan.step([case.grad], [hypers(agreement="tensor", rounding="split")])
    kernels.assert_equal([case], expected)
    kernels.assert_same(residual, expected[0]["residual"], "residual")


def test_counts_are_summed_over_shards():
    """Two halves that exchange their counts step as the whole does."""
    torch.manual_seed(0)
    whole = drawn(1000)
    expected = by_the_loop([whole], agreement="tensor_signed")
    counts = {}

    def halves(exchange):
        for place, half in enumerate((slice(0, 400), slice(400, 1000))):
            case = kernels.Case(*(tensor[half].clone() for tensor in whole[:3]), [])
            plan = plan_of([entry(case, whole=1000, offset=half.start)])
            plan.step(
                [case.grad],
                [hypers(agreement="tensor_signed")],
                sum_counts=lambda found, place=place: exchange(place, found),
            )
            yield case.param

    def remember(place, found):
        counts[place] = found.clone()
        return found

    list(halves(remember))
    together = counts[0] + counts[1]
    params = torch.cat(list(halves(lambda place, found: together)))
    kernels.assert_same(params, expected[0]["param"], "weights")


def test_two_runs_give_the_same_bits():
    """Counts are integers, so that their order does not matter."""
    results = []
    for _ in range(2):
        torch.manual_seed(0)
        case = drawn(3000)
        plan_of([entry(case)]).step([case.grad], [hypers(agreement="tensor")])
        results.append(case.param.clone())
    assert torch.equal(*results)

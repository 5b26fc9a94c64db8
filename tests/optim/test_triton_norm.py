"""GradScaler and the clip by the global norm, fused into the step."""

from __future__ import annotations

import pytest
import torch

from support import kernels
from support.kernels import DEVICE, EDGES, by_the_loop, drawn, entry, hypers

pytestmark = [*kernels.marks, pytest.mark.usefixtures("poisoned")]
poisoned = kernels.poisoned

OPTIONS = [{}, {"agreement": "tensor"}]
NAMES = ["lion", "lion_sf"]


def plan_of(entries):
    from liontool.optim.kernels.triton_plan import Plan, Tile

    return Plan(entries, tile=Tile(kernels.CHUNK, kernels.BLOCK))


def scalar(value):
    return torch.full((), value, dtype=torch.float32, device=DEVICE)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
def test_scaled_gradients(options):
    """Gradients are multiplied by the reciprocal, rounded once, and stay as they are."""
    torch.manual_seed(0)
    cases = [drawn(numel) for numel in EDGES]
    before = [case.grad.clone() for case in cases]
    scaled = {"grad_scale": scalar(3.0), "found_inf": scalar(0.0)}
    expected = by_the_loop(cases, scaled=scaled, **options)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers(**options)], **scaled
    )
    kernels.assert_equal(cases, expected)
    assert all(torch.equal(case.grad, grad) for case, grad in zip(cases, before, strict=True))


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
@pytest.mark.parametrize("clip", [None, 1e-3])
def test_a_found_infinity_changes_nothing(options, clip):
    """No pass of any step writes weights or momentum."""
    torch.manual_seed(0)
    cases = [drawn(700), drawn(5)]
    before = [{"param": case.param.cpu(), "exp_avg": case.exp_avg.cpu()} for case in cases]
    before = [{name: each.clone() for name, each in kept.items()} for kept in before]
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases],
        [hypers(**options)],
        grad_scale=scalar(2.0),
        found_inf=scalar(1.0),
        global_clipnorm=clip,
    )
    kernels.assert_equal(cases, before)


def test_a_flag_without_a_scale():
    """After `unscale_` GradScaler leaves only the flag."""
    torch.manual_seed(0)
    cases = [drawn(100)]
    expected = by_the_loop(cases)
    plan_of([entry(cases[0])]).step([cases[0].grad], [hypers()], found_inf=scalar(0.0))
    kernels.assert_equal(cases, expected)


@pytest.mark.parametrize("options", OPTIONS, ids=NAMES)
@pytest.mark.parametrize("limit", [1e-2, 10.0])
def test_clip_by_the_global_norm(options, limit):
    """All gradients together are no longer than the limit; shorter ones stay."""
    torch.manual_seed(0)
    cases = [*(drawn(numel) for numel in EDGES), drawn(300, (torch.bfloat16,) * 3)]
    expected = by_the_loop(cases, global_clipnorm=limit, **options)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers(**options)], global_clipnorm=limit
    )
    kernels.assert_equal(cases, expected)


def test_clip_after_unscaling():
    """The norm is that of the gradients without their scale."""
    torch.manual_seed(0)
    cases = [drawn(700), drawn(33)]
    scaled = {"grad_scale": scalar(1 / 3), "found_inf": scalar(0.0)}
    expected = by_the_loop(cases, scaled=scaled, global_clipnorm=1e-3)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers()], global_clipnorm=1e-3, **scaled
    )
    kernels.assert_equal(cases, expected)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_norm_that_is_not_finite(bad):
    """Every weight and every momentum becomes NaN, as in the loop."""
    torch.manual_seed(0)
    cases = [drawn(40), drawn(7)]
    cases[1].grad[3] = bad
    expected = by_the_loop(cases, global_clipnorm=1.0)
    plan_of([entry(case) for case in cases]).step(
        [case.grad for case in cases], [hypers()], global_clipnorm=1.0
    )
    kernels.assert_equal(cases, expected)
    assert bool(cases[0].param.isnan().all())


def test_squares_are_summed_over_shards():
    """Whoever shares a tensor adds the squares of its other shards."""
    torch.manual_seed(0)
    case = drawn(700)
    other = torch.full((1,), 0.25, dtype=torch.float64, device=DEVICE)
    norm = (case.grad.double().square().sum() + 0.25).sqrt()
    expected = by_the_loop([case._replace(grad=case.grad * (0.1 / norm).float())])
    plan_of([entry(case)]).step(
        [case.grad], [hypers()], global_clipnorm=0.1, sum_squares=lambda found: found + other
    )
    kernels.assert_equal([case], expected)

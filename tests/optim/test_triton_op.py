"""The step as an operator: torch.compile takes it as it is."""

from __future__ import annotations

import pytest
import torch

from liontool.optim.kernels import triton_op
from liontool.optim.kernels.triton_owner import Owner, plans_of
from support import kernels
from support.kernels import DEVICE, by_the_loop, drawn, entry, hypers

pytestmark = kernels.marks


def arguments_of(owner, cases, monkeypatch, **options):
    """What `step` hands to the operator."""
    seen = []
    with monkeypatch.context() as patch:
        patch.setattr(triton_op, "triton_step", lambda *arguments: seen.append(arguments))
        triton_op.step(
            owner, [entry(case) for case in cases], [case.grad for case in cases], **options
        )
    return seen[0]


def test_the_operator_is_one_to_torch(monkeypatch):
    """Schema, mutated arguments, fake tensors and functionalization are as torch wants them."""
    torch.manual_seed(0)
    cases = [drawn(20), drawn(7)]
    owner = Owner()
    lr = torch.tensor(1e-3, device=DEVICE)
    of_group = [hypers(lr=lr, step=torch.tensor(3, device=DEVICE), horizon=2.0)]
    arguments = arguments_of(owner, cases, monkeypatch, hypers=of_group)
    found = torch.library.opcheck(triton_op.triton_step, arguments)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("options", [{}, {"agreement": "group", "rounding": "split"}])
def test_a_compiled_step(options):
    """A traced function with the step in it gives the bits of the loop, step after step."""
    torch.manual_seed(0)
    dtypes = (torch.bfloat16,) * 3 if options else (torch.float32,) * 3
    cases = [drawn(33, dtypes), drawn(600, dtypes)]
    residuals = [torch.zeros_like(c.param, dtype=torch.int16) if options else None for c in cases]
    owner = Owner()

    @torch.compile(backend="aot_eager", fullgraph=True)
    def step(params, exp_avgs, residuals, grads, lr):
        entries = [
            triton_op.Entry(param, exp_avg, low, 0)
            for param, exp_avg, low in zip(params, exp_avgs, residuals, strict=True)
        ]
        doubled = [grad * 2 for grad in grads]
        triton_op.step(owner, entries, doubled, [hypers(lr=lr, **options)])

    lr = torch.tensor(1e-2, device=DEVICE)
    expected = by_the_loop(
        [case._replace(grad=case.grad * 2) for case in cases], lr=float(lr), **options
    )
    params, grads, exp_avgs = (list(column) for column in zip(*(c[:3] for c in cases), strict=True))
    step(params, exp_avgs, residuals, grads, lr)
    kernels.assert_equal(cases, expected)
    for _ in range(5):
        step(params, exp_avgs, residuals, grads, lr)
    assert len(owner.plans) <= triton_op._KEPT
    assert all(not plan._entries for plan in owner.plans.values())


def test_plans_go_with_their_owner():
    """An operator without an owner still steps, and keeps nothing."""
    torch.manual_seed(0)
    case = drawn(20)
    expected = by_the_loop([case])
    owner = Owner()
    number = owner.number
    del owner
    assert plans_of(number) is not plans_of(number)
    gone = Owner()
    gone.number = number
    triton_op.step(gone, [entry(case)], [case.grad], [hypers()])
    kernels.assert_equal([case], expected)
    assert not gone.plans


def stepped(owner, cases, of_groups=None, **more):
    """A step of the operator on cases, as the loop does it."""
    expected = by_the_loop(cases, groups=more.get("groups"), group_options=of_groups)
    members = more.get("groups") or [0] * len(cases)
    entries = [entry(case, group=group) for case, group in zip(cases, members, strict=True)]
    numbers = [hypers(**own) for own in of_groups or [{}]]
    triton_op.step(owner, entries, [case.grad for case in cases], numbers)
    kernels.assert_equal(cases, expected)


def test_the_same_memory_in_another_order():
    """A plan is for the strides that it was made for."""
    torch.manual_seed(0)
    owner, case = Owner(), drawn(25)
    square = case._replace(**{name: getattr(case, name).view(5, 5) for name in case._fields[:3]})
    stepped(owner, [square])
    stepped(owner, [square._replace(param=square.param.t(), exp_avg=square.exp_avg.t())])
    assert len(owner.plans) == 2


def test_the_same_memory_in_another_dtype():
    """A plan is for the dtypes that it was made for."""
    torch.manual_seed(0)
    owner, case = Owner(), drawn(40, (torch.bfloat16,) * 3)
    stepped(owner, [case])
    other = [tensor.view(torch.float16) for tensor in case[:3]]
    other[1].copy_(torch.randn(40))
    stepped(owner, [kernels.Case(*other, case.margins)])
    assert len(owner.plans) == 2


def test_the_same_tensors_in_other_groups():
    """A plan is for the groups that it was made for."""
    torch.manual_seed(0)
    owner, cases = Owner(), [drawn(20), drawn(30)]
    own = [{"lr": 1e-3}, {"lr": 1e-2, "maximize": True}]
    stepped(owner, cases, own, groups=[0, 1])
    stepped(owner, cases, own, groups=[1, 0])
    assert len(owner.plans) == 2


def test_plans_of_captured_graphs_stay():
    """A graph is replayed with the tables of its plan, however many plans come after it."""
    owner, first = Owner(), drawn(20)
    triton_op.step(owner, [entry(first)], [first.grad], [hypers()])
    (plan,) = owner.plans.values()
    plan._moving._captured.append(None)
    others = [drawn(20) for _ in range(2 * triton_op._KEPT)]
    for case in others:
        triton_op.step(owner, [entry(case)], [case.grad], [hypers()])
    assert plan in owner.plans.values()
    assert len(owner.plans) == 1 + triton_op._KEPT

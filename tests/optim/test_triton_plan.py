"""Plans: memory layouts, tables that are kept while they hold, numbers that the device has."""

from __future__ import annotations

import pytest
import torch

from liontool.optim.kernels.triton_layout import reason_against
from support import kernels
from support.kernels import DEVICE, by_the_loop, drawn, entry, hypers

pytestmark = kernels.marks


def plan_of(entries):
    from liontool.optim.kernels.triton_plan import Plan, Tile

    return Plan(entries, tile=Tile(kernels.CHUNK, kernels.BLOCK))


def case_of(param, grad):
    """A case of given tensors, with a momentum in the layout of the weights."""
    exp_avg = torch.empty_like(param).normal_(0, 1e-3)
    return kernels.Case(param.to(DEVICE), grad.to(DEVICE), exp_avg.to(DEVICE), [])


def like_the_loop(case, **options):
    expected = by_the_loop([case], **options)
    plan_of([entry(case)]).step([case.grad], [hypers(**options)])
    kernels.assert_equal([case], expected)


LAYOUTS = {
    "channels_last": lambda: torch.randn(3, 5, 4, 4).to(memory_format=torch.channels_last),
    "transposed": lambda: torch.randn(20, 30).t(),
    "permuted": lambda: torch.randn(4, 5, 6).permute(1, 2, 0),
    "column": lambda: torch.randn(30, 1).t(),
    "scalar": lambda: torch.randn(()),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("own", [True, False], ids=["same layout", "contiguous gradient"])
@pytest.mark.parametrize("agreement", [None, "tensor"])
def test_dense_layouts(layout, own, agreement):
    """Weights are walked through in the order of memory; a gradient in another order is copied."""
    torch.manual_seed(0)
    param = LAYOUTS[layout]()
    grad = torch.randn_like(param) if own else torch.randn(param.shape)
    like_the_loop(case_of(param, grad), **({"agreement": agreement} if agreement else {}))


@pytest.mark.parametrize("kind", ["strided", "expanded", "offset"])
def test_gradients_with_gaps(kind):
    """What autograd would not lay out so, a user may assign."""
    torch.manual_seed(0)
    numbers = torch.randn(600)
    grads = {
        "strided": numbers[::2],
        "expanded": numbers[:1].expand(300),
        "offset": numbers[300:],
    }
    grad = grads[kind]
    before = grad.clone()
    like_the_loop(case_of(torch.randn(300), grad))
    assert torch.equal(grad, before)


def test_gradients_change_place_dtype_and_layout():
    """Each step looks at its own gradients."""
    torch.manual_seed(0)
    first, second = case_of(torch.randn(40, 30), torch.randn(40, 30)), drawn(16)
    plan = plan_of([entry(first), entry(second)])
    odd = torch.randn(1201, device=DEVICE)[1:].view(40, 30)
    grads = [first.grad, first.grad.clone(), odd, odd.bfloat16(), first.grad.t().contiguous().t()]
    for grad in grads:
        cases = [first._replace(grad=grad), second]
        expected = by_the_loop(cases)
        plan.step([grad, second.grad], [hypers()])
        kernels.assert_equal(cases, expected)
        assert plan._tables.buckets[0].kind.aligned == (grad is not odd)


def test_tables_are_sent_again_only_when_they_changed():
    """Steps with the same numbers and gradients in the same place send nothing."""
    case = drawn(100)
    plan = plan_of([entry(case)])
    plan.step([case.grad], [hypers()])
    tables, sent = plan._tables, plan._moving._sent
    case.grad.add_(1.0)
    plan.step([case.grad], [hypers()])
    assert plan._tables is tables
    assert plan._moving._sent is sent
    plan.step([case.grad], [hypers(lr=0.5)])
    assert plan._tables is tables
    assert plan._moving._sent is not sent


@pytest.mark.parametrize("odd", [None, "param", "grad", "exp_avg", "residual"])
def test_one_odd_address_is_enough(odd):
    """Wide accesses are promised only where all tensors of a parameter allow them."""
    shifts = {name: int(name == odd) for name in ("param", "grad", "exp_avg", "residual")}
    tensors = {
        name: torch.zeros(40, dtype=torch.bfloat16, device=DEVICE)[shift : shift + 30]
        for name, shift in shifts.items()
    }
    residual = tensors.pop("residual").view(torch.int16)
    plan = plan_of([entry(kernels.Case(**tensors, margins=[]), residual=residual)])
    plan.step([tensors["grad"]], [hypers(rounding="split")])
    assert [bucket.kind.aligned for bucket in plan._tables.buckets] == [odd is None]


def test_weights_that_moved():
    """Whoever gives a parameter other memory gets steps there."""
    torch.manual_seed(0)
    param = torch.nn.Parameter(torch.randn(300, device=DEVICE))
    case = case_of(param.data, torch.randn(300))
    plan = plan_of([entry(case)._replace(param=param)])
    plan.step([case.grad], [hypers()])
    param.data = torch.cat([torch.ones(1, device=DEVICE), param.data])[1:]
    moved = case._replace(param=param.data)
    expected = by_the_loop([moved])
    plan.step([case.grad], [hypers()])
    kernels.assert_equal([moved], expected)


def test_autograd_sees_the_write():
    """A graph that saved the weights refuses to go back through a step."""
    param = torch.nn.Parameter(torch.ones(3, device=DEVICE))
    loss = (param * param).sum()
    plan = plan_of([entry(case_of(torch.ones(3), torch.ones(3)))._replace(param=param)])
    plan.step([torch.ones(3, device=DEVICE)], [hypers()])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"agreement": "tensor"}], ids=["lion", "lion_sf"])
def test_lr_on_the_device(dtype, options):
    """A tensor is read where it is, and its value may change between steps."""
    torch.manual_seed(0)
    case = drawn(300)
    plan = plan_of([entry(case)])
    lr = torch.tensor(1e-3, dtype=dtype, device=DEVICE)
    for value in (1e-3, 3e-3):
        lr.fill_(value)
        expected = by_the_loop([case], lr=float(lr), **options)
        plan.step([case.grad], [hypers(lr=lr, **options)])
        kernels.assert_equal([case], expected)


@pytest.mark.parametrize("horizon", [None, 2.5])
def test_step_number_on_the_device(horizon):
    """Horizon and noise follow a counter that the host does not read."""
    torch.manual_seed(0)
    case = drawn(300, (torch.bfloat16,) * 3)
    plan = plan_of([entry(case)])
    step = torch.tensor(0, device=DEVICE)
    for done in (0, 1, 500):
        step.fill_(done)
        options = {"horizon": horizon, "rounding": "stochastic", "seed": 3}
        expected = by_the_loop([case], step=done, **options)
        plan.step([case.grad], [hypers(step=step, **options)])
        kernels.assert_equal([case], expected)


def test_numbers_on_another_device_are_read():
    """A tensor that the kernel cannot reach counts as the number that it holds."""
    torch.manual_seed(0)
    case = drawn(30)
    expected = by_the_loop([case], horizon=2.0, step=4)
    options = {"lr": torch.tensor(1e-3, dtype=torch.float64), "step": torch.tensor(4)}
    plan_of([entry(case)]).step([case.grad], [hypers(horizon=2.0, **options)])
    kernels.assert_equal([case], expected)


def test_a_plan_of_nothing_but_empty_tensors():
    """No element, no launch."""
    case = drawn(0)
    plan_of([entry(case)]).step([case.grad], [hypers(agreement="tensor")], global_clipnorm=1.0)
    assert case.param.numel() == 0


REFUSED = {
    "no kernel for meta": {"param": torch.ones(2, 3, device="meta")},
    "no kernel for weights in torch.float64": {"param": torch.ones(2, 3).double()},
    "no kernel for gradients in torch.float64": {"grad": torch.ones(2, 3).double()},
    "momenta on meta": {"exp_avg": torch.ones(2, 3, device="meta")},
    "gradients are no plain tensor": {"grad": torch.ones(2, 3).to_sparse()},
    "overlap or have gaps": {"param": torch.ones(2, 6)[:, ::2]},
    "another memory layout": {"exp_avg": torch.ones(3, 2).t()},
    "that are not contiguous": {
        "param": torch.ones(3, 2).bfloat16().t(),
        "exp_avg": torch.ones(3, 2).t(),
    },
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_refused(reason):
    """The reason says what the kernels cannot do; without one, they can."""
    tensors = {name: torch.ones(2, 3) for name in ("param", "grad", "exp_avg")} | REFUSED[reason]
    tensors = {name: t if t.is_meta else t.to(DEVICE) for name, t in tensors.items()}
    found = reason_against(**tensors, residual=None, rounding="stochastic")
    assert reason in found
    good = torch.ones(2, 3, device=DEVICE)
    assert reason_against(good, good, good, None) is None


def test_a_step_refuses_what_the_plan_would():
    """A gradient that comes later in a dtype without a kernel changes nothing."""
    case = drawn(10)
    plan = plan_of([entry(case)])
    with pytest.raises(RuntimeError, match="cannot do this step: no kernel for gradients in"):
        plan.step([case.grad.double()], [hypers()])


@kernels.on_device
def test_nothing_waits_for_the_device():
    """A step of every option synchronises nothing once its tables are there."""
    case = drawn(3000)
    plan = plan_of([entry(case)])
    flags = {name: torch.zeros((), device=DEVICE) + 1 for name in ("grad_scale",)}
    of_group = [hypers(agreement="group", lr=torch.tensor(1e-3, device=DEVICE))]
    plan.step([case.grad], of_group, global_clipnorm=1.0, **flags)
    other = case.grad.clone()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan.step([other], of_group, global_clipnorm=1.0, **flags)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert bool(case.param.isfinite().all())


def test_two_captures_in_a_row():
    """A capture takes the memory that the step before it made ready; one more finds none."""
    case = drawn(30)
    moving = plan_of([entry(case)])._moving
    assert moving._ready_staging(capturing=True) is not None
    with pytest.raises(RuntimeError, match="there must be one without a capture"):
        moving._ready_staging(capturing=True)
    assert moving._ready_staging(capturing=False) is not None


@kernels.on_device
@pytest.mark.parametrize("options", [{}, {"agreement": "tensor"}], ids=["lion", "lion_sf"])
def test_a_captured_step(options):
    """Replays give the bits of steps, with new gradients, lr and step number."""
    torch.manual_seed(0)
    case = drawn(3000, (torch.bfloat16,) * 3)
    twin = kernels.Case(*(tensor.clone() for tensor in case[:3]), [])
    lr, step = torch.tensor(1e-3, device=DEVICE), torch.tensor(0, device=DEVICE)
    numbers = {"lr": lr, "step": step, "rounding": "stochastic", **options}
    plan, eager = plan_of([entry(case)]), plan_of([entry(twin)])
    plan.step([case.grad], [hypers(**numbers)])
    eager.step([twin.grad], [hypers(**numbers)])
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        plan.step([case.grad], [hypers(**numbers)])
    for turn in range(3):
        lr.fill_(1e-3 * (turn + 1))
        step.fill_(turn)
        case.grad.normal_()
        twin.grad.copy_(case.grad)
        graph.replay()
        eager.step([twin.grad], [hypers(**numbers)])
        assert torch.equal(case.param, twin.param)
        assert torch.equal(case.exp_avg, twin.exp_avg)
    # A step between replays sends its own table, and the next replay that of its capture.
    plan.step([case.grad.clone()], [hypers(**numbers)])
    eager.step([twin.grad], [hypers(**numbers)])
    graph.replay()
    eager.step([twin.grad], [hypers(**numbers)])
    assert torch.equal(case.param, twin.param)


@kernels.on_device
def test_more_than_two_to_the_31_elements():
    """Offsets have 64 bits: the last elements of a tensor of 2**31 + 4099 get their step."""
    from liontool.optim.kernels.triton_plan import Plan

    numel = 2**31 + 4099
    if torch.cuda.mem_get_info()[0] < 14 * 2**30:
        pytest.skip("needs 14 GiB of GPU memory")
    param, grad = (torch.ones(numel, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    exp_avg = torch.zeros_like(param)
    plan = Plan([entry(kernels.Case(param, grad, exp_avg, []))])
    plan.step([grad], [hypers(lr=0.5, weight_decay=0.0)])
    assert bool((param == 0.5).all())


@kernels.on_device
def test_a_stream_of_its_own():
    """The step runs on the current stream."""
    torch.manual_seed(0)
    case = drawn(3000)
    expected = by_the_loop([case])
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        plan_of([entry(case)]).step([case.grad], [hypers()])
    stream.synchronize()
    kernels.assert_equal([case], expected)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_a_device_that_is_not_the_current_one():
    """The step runs where the weights are."""
    torch.manual_seed(0)
    case = drawn(300)
    expected = by_the_loop([case])
    there = kernels.Case(*(tensor.to("cuda:1") for tensor in case[:3]), [])
    plan_of([entry(there)]).step([there.grad], [hypers()])
    kernels.assert_equal([there], expected)

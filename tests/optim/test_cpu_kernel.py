"""The CPU kernel equals the definition in every bit, on every instruction set that is here."""

from __future__ import annotations

import ctypes
import itertools
import math
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.testing._internal.two_tensor import TwoTensor

from liontool.optim import Lion, backends, reference, rounding
from liontool.optim.kernels import cpu_library, cpu_schedule, cpu_threads
from liontool.optim.kernels.cpu import Entry, Hypers, Plan

needs_kernel = pytest.mark.skipif(
    cpu_library.why_none() is not None, reason=str(cpu_library.why_none())
)
SETS = cpu_library.INSTRUCTION_SETS
CHUNK = 512
SIZES = (0, 1, 15, 16, 17, 63, 64, 65, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5, 0)
AGREEMENTS = ("tensor", "group", "tensor_signed", "group_signed")
F32, BF16 = torch.float32, torch.bfloat16
# What floating point can be: zeros, subnormals, ordinary, halfway between bfloat16, the largest.
VALUES = [0.0, 1e-45, 1e-39, 1.2e-38, 1e-3, 1.0, 1.00390625, 1.01171875, 3.3895e38, 3.4028e38]
SPECIAL = [sign * value for value in [*VALUES, math.inf] for sign in (1, -1)] + [math.nan]

pytestmark = needs_kernel


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 512 elements, so that small tensors have several."""
    monkeypatch.setattr(cpu_schedule, "CHUNK", CHUNK)


@pytest.fixture(params=SETS)
def instructions(request: pytest.FixtureRequest) -> str:
    """Each instruction set that this machine has."""
    if request.param not in cpu_library.instruction_sets():
        pytest.skip(f"this machine has no {request.param}")
    return str(request.param)


def hypers(**options: object) -> Hypers:
    """Numbers of a group as the optimizer makes them."""
    factors = reference.coefficients(1e-2, 0.1, (0.9, 0.99))
    decay, beta1, gradient1, beta2, gradient2 = map(float, factors)
    return Hypers(decay, 1e-2, beta1, gradient1, beta2, gradient2, **options)  # type: ignore[arg-type]


def entries(
    sizes: tuple[int, ...] = SIZES,
    param: torch.dtype = F32,
    exp_avg: torch.dtype = F32,
    split: bool = False,
    groups: int = 1,
) -> list[Entry]:
    """Tensors of these sizes, in turn of each group."""
    made = []
    for place, size in enumerate(sizes):
        wide = torch.randn(size)
        hi, lo = rounding.split(wide)
        weight = hi if split else wide.to(param)
        momentum = (torch.randn(size) / 10).to(exp_avg)
        made.append(Entry(weight, momentum, lo if split else None, place % groups))
    return made


def gradients(of: list[Entry]) -> list[Tensor]:
    """A gradient for each entry; a third of its elements is 0."""
    return [
        (torch.randn(each.param.shape) * (torch.rand(each.param.shape) > 1 / 3)).to(
            each.param.dtype
        )
        for each in of
    ]


def copied(of: list[Entry]) -> list[Entry]:
    """The same with memory of its own, laid out alike."""
    return [Entry(*(x.clone() if isinstance(x, Tensor) else x for x in each)) for each in of]


def expected(of: list[Entry], grads: list[Tensor], groups: list[Hypers]) -> list[tuple[int, int]]:
    """A step by the definition, in place; returns the counts."""
    factors = [reference.Coefficients(h.decay, *h[2:6]) for h in groups]
    wide = [
        -g.float() if groups[e.group].maximize else g.float()
        for e, g in zip(of, grads, strict=True)
    ]
    counts = []
    for entry, g in zip(of, wide, strict=True):
        update = reference.mixed_sign(g, entry.exp_avg.float(), factors[entry.group])
        counts.append((int(reference.agreement_counts(update, g)), int((g != 0).sum())))
    for place, (entry, g) in enumerate(zip(of, wide, strict=True)):
        group = groups[entry.group]
        size = step_size(place, of, counts, group)
        p = entry.param
        p = p.float() if entry.residual is None else rounding.combined(p, entry.residual)
        numbers = (size, factors[entry.group], group.cautious_wd)
        p, m = reference.updated(p, g, entry.exp_avg.float(), *numbers)
        if entry.residual is None:
            entry.param.copy_(p)
        else:
            hi, lo = rounding.split(p)
            entry.param.copy_(hi), entry.residual.copy_(lo)
        entry.exp_avg.copy_(m)
    return counts


def step_size(
    place: int, of: list[Entry], counts: list[tuple[int, int]], group: Hypers
) -> reference.StepSize:
    """What the update of one entry is multiplied by."""
    size: reference.Scalar = group.size
    if group.agreement is not None:
        together = group.agreement.startswith("group")
        scope = [
            i for i, e in enumerate(of) if i == place or (together and e.group == of[place].group)
        ]
        signed = group.agreement.endswith("_signed")
        numel = sum(of[i].param.numel() for i in scope)
        size = size * reference.agreement_scale(
            torch.tensor(sum(counts[i][0] for i in scope)),
            torch.tensor(sum(counts[i][1] for i in scope)) if signed else numel,
            pow=group.pow,
            signed=signed,
        )
    if group.cautious_factor == 1:
        return size
    agreeing, numel = torch.tensor(counts[place][0]), of[place].param.numel()
    agree, differ = reference.cautious_factors(agreeing, numel, group.cautious_factor)
    return size * agree, size * differ


def assert_same(ours: list[Entry], theirs: list[Entry]) -> None:
    """All bits are equal; any NaN is as good as another."""
    for mine, their in zip(ours, theirs, strict=True):
        for name in ("param", "exp_avg", "residual"):
            a, b = getattr(mine, name), getattr(their, name)
            if a is not None:
                bits = {2: torch.int16, 4: torch.int32}[a.element_size()]
                a_nan, b_nan = a.isnan(), b.isnan()
                assert torch.equal(a_nan, b_nan), name
                assert torch.equal(a.view(bits)[~a_nan], b.view(bits)[~b_nan]), name


def assert_steps_equal(
    of: list[Entry], groups: list[Hypers], *, steps: int = 3, wide: bool = False
) -> None:
    """Kernel and definition do the same steps, on every instruction set, on one thread or two."""
    theirs = copied(of)
    sets = cpu_library.instruction_sets()
    runs = [(name, 2) for name in sets[:-1]] + [(sets[-1], 1), (sets[-1], 2)]
    ours = [(name, threads, copied(of)) for name, threads in runs]
    dtypes = [F32 if wide else entry.param.dtype for entry in of]
    plans = [Plan(mine, name, dtypes) for name, _, mine in ours]
    for _ in range(steps):
        grads = [grad.float() if wide else grad for grad in gradients(of)]
        counts = expected(theirs, grads, groups)
        for plan, (_, threads, _) in zip(plans, ours, strict=True):
            plan.step(grads, groups, threads)
            for entry, found, true in zip(of, plan.counts(), counts, strict=True):
                group = groups[entry.group]
                needed = group.agreement is not None or group.cautious_factor != 1
                signed = str(group.agreement).endswith("_signed")
                assert found == (true[0] * needed, true[1] * signed)
    for _, _, mine in ours:
        assert_same(mine, theirs)


def test_200_steps_are_equal() -> None:
    """200 steps of Lion and LionSF give the definition's counts and bits, whatever the size."""
    torch.manual_seed(0)
    groups = [hypers(), hypers(agreement="tensor")]
    assert_steps_equal(entries(SIZES * 2, groups=2), groups, steps=200)


@pytest.mark.parametrize("pow", [0.0, 0.5, 1.0, 1.7, 2.0, 3.0])
@pytest.mark.parametrize("agreement", AGREEMENTS)
def test_agreements(agreement: str, pow: float) -> None:
    """Every agreement and exponent, up the gradient too, beside a group of plain Lion."""
    torch.manual_seed(0)
    groups = [
        hypers(agreement=agreement, pow=pow, maximize=True),
        hypers(),
        hypers(agreement="tensor"),
    ]
    assert_steps_equal(entries(groups=3), groups)


@pytest.mark.parametrize("factor", [0.0, 0.3, 2.0])
@pytest.mark.parametrize("agreement", [None, "tensor", "group_signed"])
def test_caution(agreement: str | None, factor: float) -> None:
    """Every cautious factor, with every way to count."""
    torch.manual_seed(0)
    group = hypers(agreement=agreement, cautious_factor=factor)
    assert_steps_equal(entries(groups=2), [group, hypers()])


@pytest.mark.parametrize("options", [{}, {"agreement": "group"}, {"cautious_factor": 0.0}])
def test_cautious_decay(options: dict[str, object]) -> None:
    """Only weights decay that the update makes smaller."""
    torch.manual_seed(0)
    assert_steps_equal(entries(), [hypers(cautious_wd=True, **options)], steps=10)


@pytest.mark.parametrize("wide", [False, True], ids=["", "wide-gradients"])
@pytest.mark.parametrize("agreement", [None, "tensor", "group"])
@pytest.mark.parametrize(
    ("param", "exp_avg", "split"),
    [
        pytest.param(BF16, BF16, False, id="all-bf16"),
        pytest.param(BF16, F32, False, id="bf16-with-wide-momentum"),
        pytest.param(F32, BF16, False, id="bf16-momentum"),
        pytest.param(BF16, BF16, True, id="split-bf16-momentum"),
        pytest.param(BF16, F32, True, id="split"),
    ],
)
def test_bfloat16(
    param: torch.dtype, exp_avg: torch.dtype, split: bool, agreement: str | None, wide: bool
) -> None:
    """bfloat16 of every tensor rounds as torch does, and split weights lose nothing."""
    torch.manual_seed(0)
    of = entries(param=param, exp_avg=exp_avg, split=split)
    assert_steps_equal(of, [hypers(agreement=agreement)], steps=10, wide=wide)
    assert_steps_equal(of, [hypers(agreement=agreement, cautious_factor=0.0)], wide=wide)


@pytest.mark.parametrize(
    "options",
    [{}, {"cautious_wd": True}, {"agreement": "tensor"}, {"cautious_factor": 0.0}],
    ids=["lion", "cautious-decay", "lion-sf", "caution"],
)
@pytest.mark.parametrize("dtype", [F32, BF16])
def test_special_values(dtype: torch.dtype, options: dict[str, object], instructions: str) -> None:
    """Zeros, subnormals, halfway cases, infinities and NaN meet as in the definition."""
    cube = torch.tensor(list(itertools.product(SPECIAL, repeat=3)))
    p, g, m = cube.to(dtype).T.contiguous()
    ours, theirs = [Entry(p, m, None, 0)], [Entry(p.clone(), m.clone(), None, 0)]
    expected(theirs, [g], [hypers(**options)])
    Plan(ours, instructions).step([g], [hypers(**options)])
    assert_same(ours, theirs)


def test_special_values_split(instructions: str) -> None:
    """Split weights whose halves do not belong together are read as the definition reads them."""
    halves = [-(2**15), -1, 0, 1, 2**15 - 1]
    rows = list(itertools.product(SPECIAL, halves, [0.0, 1.0, -1.0, math.nan]))
    p, lo, g = (torch.tensor(column) for column in zip(*rows, strict=True))
    of = [Entry(p.to(BF16), torch.zeros(len(rows)), lo.to(torch.int16), 0)]
    theirs = copied(of)
    expected(theirs, [g.to(BF16)], [hypers()])
    Plan(of, instructions).step([g.to(BF16)], [hypers()])
    assert_same(of, theirs)


@pytest.mark.parametrize("payload", [0x7FFFFFFF, 0x7F800001, 0xFFFFFFFF - 2**32, 0x7F80FFFF])
def test_nan_of_any_payload_stays_nan(payload: int, instructions: str) -> None:
    """Rounding to bfloat16 carries over no NaN into a number."""
    nan = torch.full((70,), payload, dtype=torch.int32).view(F32)
    for grad, momentum in ((nan, torch.zeros(70)), (torch.zeros(70), nan)):
        of = [Entry(torch.ones(70, dtype=BF16), momentum.to(F32), None, 0)]
        Plan(of, instructions, grad_dtypes=[F32]).step([grad], [hypers()])
        assert all(each.isnan().all() for each in of[0][:2])
        of = [Entry(torch.ones(70), torch.zeros(70, dtype=BF16), None, 0)]
        Plan(of, instructions, grad_dtypes=[F32]).step([nan], [hypers()])
        assert all(each.isnan().all() for each in of[0][:2])


def test_one_gradient_of_another_layout(instructions: str) -> None:
    """Where all weights are contiguous, a transposed gradient is still read where it is meant."""
    torch.manual_seed(0)
    of = [Entry(torch.randn(11, 13), torch.zeros(11, 13), None, 0) for _ in range(2)]
    theirs, grads = copied(of), [torch.randn(11, 13), torch.randn(13, 11).T]
    Plan(of, instructions).step(grads, [hypers()])
    expected(theirs, grads, [hypers()])
    assert_same(of, theirs)


@pytest.mark.parametrize("place", [0, 1])
def test_a_gradient_without_memory(place: int) -> None:
    """The step is not done, and nothing changes; a tensor without elements needs no memory."""
    of = [Entry(torch.ones(size), torch.zeros(size), None, 0) for size in (9, 9, 0)]
    plan, grads = Plan(of), [torch.ones(9), torch.ones(9), torch.ones(0)]
    assert plan.step(grads, [hypers()])
    kept = copied(of)
    grads[place] = torch._efficientzerotensor(9)
    assert not plan.step(grads, [hypers()])
    assert_same(of, kept)


def test_nothing_moves_without_gradient_and_momentum() -> None:
    """sign(0) is 0."""
    entry = Entry(torch.ones(9), torch.zeros(9), None, 0)
    Plan([entry]).step([torch.zeros(9)], [hypers()._replace(decay=1.0)])
    assert entry.param.tolist() == [1.0] * 9


def test_unaligned_views(instructions: str) -> None:
    """Tensors may begin anywhere in memory; what lies around them is not touched."""
    torch.manual_seed(0)
    around = [torch.randn(103) for _ in range(2)]
    of = [Entry(around[0][1:102], around[1][2:103], None, 0)]
    theirs, edges = copied(of), [x[[0, 102]].clone() for x in around]
    grad = torch.randn(104)[3:]
    Plan(of, instructions).step([grad], [hypers()])
    expected(theirs, [grad], [hypers()])
    assert_same(of, theirs)
    assert around[0][[0, 102]].equal(edges[0])
    assert around[1][0].equal(edges[1][0])


def laid_out(name: str) -> Tensor:
    """A dense tensor that is not contiguous."""
    if name == "channels_last":
        return torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last)
    return torch.randn(11, 13).T


@pytest.mark.parametrize("layout", ["channels_last", "transposed"])
@pytest.mark.parametrize("same", [True, False], ids=["grad-alike", "grad-contiguous"])
def test_dense_layouts(layout: str, same: bool) -> None:
    """Layouts without gaps work, and a gradient of another layout is copied, not changed."""
    torch.manual_seed(0)
    param = laid_out(layout)
    of = [Entry(param, torch.zeros_like(param), None, 0)]
    theirs, grad = copied(of), laid_out(layout)
    grad = grad if same else grad.contiguous()
    kept = grad.clone()
    Plan(of).step([grad], [hypers()])
    expected(theirs, [grad], [hypers()])
    assert_same([each._replace(param=each.param.contiguous()) for each in of],
                [each._replace(param=each.param.contiguous()) for each in theirs])  # fmt: skip
    assert torch.equal(grad, kept)


def test_groups_that_change_their_mode() -> None:
    """One plan serves Lion, LionSF and caution in turn."""
    torch.manual_seed(0)
    ours = entries()
    theirs, plan = copied(ours), Plan(ours)
    for options in ({}, {"agreement": "group"}, {"cautious_factor": 0.0}, {}):
        grads = gradients(ours)
        plan.step(grads, [hypers(**options)])  # type: ignore[arg-type]
        expected(theirs, grads, [hypers(**options)])  # type: ignore[arg-type]
    assert_same(ours, theirs)


@pytest.mark.parametrize(
    ("agreement", "size"), [(None, 10**6), ("tensor", 10**6), ("tensor", CHUNK), ("group", 700)]
)
def test_memory(agreement: str | None, size: int) -> None:
    """LionSF takes two bits an element of tensors of several chunks, and Lion takes nothing."""
    entry = Entry(torch.zeros(size), torch.zeros(size), None, 0)
    mode = cpu_schedule.Mode(agreement is not None, agreement == "group", False)
    codes = cpu_schedule.Schedule([entry], [mode], [False]).codes
    needs_codes = agreement == "group" or (agreement is not None and size > CHUNK)
    assert (codes is not None) == needs_codes
    if codes is not None:
        assert size / 4 <= codes.nbytes < size / 4 + 64


def test_no_tensors() -> None:
    """A plan for nothing does nothing."""
    plan = Plan([])
    plan.step([], [hypers(agreement="tensor")])
    assert plan.counts() == []


def test_many_threads_with_little_to_do() -> None:
    """More threads than items, waiting for one another's counts."""
    torch.manual_seed(0)
    ours = entries((3 * CHUNK, 5, 2 * CHUNK))
    theirs, plan = copied(ours), Plan(ours)
    for _ in range(50):
        grads = gradients(ours)
        plan.step(grads, [hypers(agreement="group")], threads=8)
        expected(theirs, grads, [hypers(agreement="group")])
    assert_same(ours, theirs)


def test_wide_gradients_of_some() -> None:
    """Each gradient is read in the dtype that was promised for it."""
    torch.manual_seed(0)
    ours = entries((70, 70, 1000), param=BF16)
    theirs, grads = copied(ours), gradients(ours)
    grads[1] = grads[1].float()
    Plan(ours, grad_dtypes=[grad.dtype for grad in grads]).step(grads, [hypers(agreement="tensor")])
    expected(theirs, grads, [hypers(agreement="tensor")])
    assert_same(ours, theirs)


def test_autograd_hears_of_the_change() -> None:
    """A weight that backward still needs cannot change unseen."""
    x, weight = torch.ones(3, requires_grad=True), torch.ones(3, requires_grad=True)
    product = (x * weight).sum()
    with torch.no_grad():
        Plan([Entry(weight, torch.zeros(3), None, 0)]).step([torch.ones(3)], [hypers()])
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_plan_knows_when_weights_move() -> None:
    """A plan holds until a tensor is elsewhere."""
    weight = torch.nn.Parameter(torch.ones(3))
    plan = Plan([Entry(weight, torch.zeros(3), None, 0)])
    assert plan.holds()
    weight.data = torch.ones(3)
    assert not plan.holds()


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[:2],
        lambda x: x.t(),
        lambda x: x.view(-1).view(BF16)[:16].view(4, 4),
        lambda x: x.view(torch.int32),
    ],
    ids=["fewer", "transposed", "narrower", "as wide"],
)
@pytest.mark.parametrize("which", ["param", "exp_avg"])
def test_plan_knows_when_weights_change_where_they_are(which: str, change: Any) -> None:
    """Size, order and dtype can change at the same place."""
    entry = Entry(torch.ones(4, 4), torch.zeros(4, 4), None, 0)
    plan, tensor = Plan([entry]), getattr(entry, which)
    assert plan.holds()
    tensor.data = change(tensor.data)
    assert not plan.holds()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        ((torch.zeros(2, dtype=torch.float16),) * 3, "torch.float16 weights"),
        ((torch.zeros(2), torch.zeros(2, dtype=BF16), torch.zeros(2)), "torch.bfloat16 gradients"),
        ((torch.zeros(2), torch.zeros(2), torch.zeros(2).half()), "torch.float16 momentum"),
        ((torch.zeros(2, device="meta"),) * 3, "does not reach meta"),
        ((torch.zeros(2), torch.zeros(2).to_sparse(), torch.zeros(2)), "torch.sparse_coo"),
        ((torch.zeros(3, 2), torch.zeros(3, 2), torch.zeros(2, 3).T), "of one shape and layout"),
        ((torch.zeros(4)[::2], torch.zeros(2), torch.zeros(4)[::2]), "without gaps"),
        ((torch.zeros(1).expand(2), torch.zeros(2), torch.zeros(1).expand(2)), "without gaps"),
        ((torch.zeros(2), torch.zeros(2), torch.zeros(2), torch.zeros(2).short()), "residuals"),
        ((torch.zeros(2), torch.zeros(2), torch._neg_view(torch.zeros(2))), "the negative of"),
        ((torch.zeros(2), torch._efficientzerotensor(2), torch.zeros(2)), "without memory"),
        ((TwoTensor(torch.zeros(2), torch.zeros(2)),) * 3, "a TwoTensor does not lie in memory"),
    ],
)
def test_unsupported(tensors: tuple[Tensor, ...], reason: str) -> None:
    """What the kernel cannot do, it says."""
    assert reason in str(Plan.unsupported(*tensors))


def test_supported() -> None:
    """Dense tensors of the known dtypes, their gradients laid out in any way."""
    param = laid_out("transposed")
    assert Plan.unsupported(param, param.contiguous(), torch.zeros_like(param, dtype=BF16)) is None
    half = torch.zeros(3, 1, dtype=BF16)
    assert Plan.unsupported(half, half, half, torch.zeros(3, 1, dtype=torch.int16)) is None


FORKED = """
import os, sys, torch
from liontool.optim.kernels import cpu, cpu_threads

torch.set_num_threads(2)
weight, grad = torch.ones(2**18), torch.ones(2**18)
plan = cpu.Plan([cpu.Entry(weight, torch.zeros_like(weight), None, 0)])
hypers = [cpu.Hypers(1.0, 0.25, 0.9, 0.1, 0.99, 0.01)]
plan.step([grad], hypers)
assert cpu_threads.pool() is None or cpu_threads.count() == 2
child = os.fork()
if child == 0:  # few elements: torch itself would wait for its pool
    plan.step([grad], hypers)
    right = weight[:4].tolist() == weight[-4:].tolist() == [0.5] * 4
    os._exit(0 if right and cpu_threads.count() == 1 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_forked_child_uses_one_thread() -> None:
    """A child has none of the pool's threads and does not wait for them."""
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], check=True, timeout=60)


def test_torch_decides_on_threads() -> None:
    """The number of threads is torch's."""
    assert cpu_threads.count() == (1 if cpu_threads.pool() is None else torch.get_num_threads())


def test_kernel_is_not_linked_to_openmp() -> None:
    """Nothing but the C library is needed to load it."""
    binary = Path(cpu_library.library()._name).read_bytes()
    assert b"GOMP" not in binary
    assert b"libgomp" not in binary


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own and a small source to build."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv(cpu_library.SWITCH, raising=False)
    source = tmp_path / "answer.c"
    source.write_text("int answer(void) { return 42; }\n", encoding="utf-8")
    return source


def test_build_once(private: Path) -> None:
    """The second build finds the first, and another source does not."""
    built = cpu_library.build(private)
    assert ctypes.CDLL(str(built)).answer() == 42
    age = built.stat().st_mtime_ns
    assert cpu_library.build(private) == built
    assert built.stat().st_mtime_ns == age
    assert os.stat(built.parent).st_mode & 0o777 == 0o700
    private.write_text("int answer(void) { return 43; }\n", encoding="utf-8")
    assert cpu_library.build(private) != built


def test_builds_at_once(private: Path) -> None:
    """Those that build at the same time all get a whole library, and nothing is left over."""
    with ThreadPoolExecutor(4) as pool:
        built = {
            each.result() for each in [pool.submit(cpu_library.build, private) for _ in range(4)]
        }
    assert len(built) == 1
    assert [*built.pop().parent.iterdir()] != []
    assert len([*(private.parent / "cache" / "liontool").iterdir()]) == 1


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("LIONTOOL_NO_COMPILE", "1", "LIONTOOL_NO_COMPILE is set"),
        ("CC", "no-such-compiler", "`no-such-compiler` is not found; install one or set CC"),
        ("CC", "false", "false failed: exit status 1"),
        ("CC", "cc -no-such-option", "-no-such-option"),
        ("CC", "true", "true made no file"),
        ("CC", 'cc "', 'CC=cc " is no command: No closing quotation'),
        ("CC", "sh -c 'echo no library > $8' sh", "(file too short|invalid ELF header)"),
        ("CC", "/", "`/` is not found"),
    ],
)
def test_reasons(
    private: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    """Why there is no kernel is said in one line."""
    monkeypatch.setenv(name, value)
    with pytest.raises(cpu_library.NoKernelError, match="^no kernel: [^\n]*" + reason + "[^\n]*$"):
        cpu_library.build(private)


@pytest.mark.parametrize(
    ("compiler", "reason"),
    [
        ('cc "', "No closing quotation"),
        ("true", "true made no file"),
        ("sh -c 'echo \"int i;\" | cc -shared -x c - -o $8' sh", "undefined symbol"),
    ],
    ids=["quote", "nothing", "another library"],
)
def test_optimizers_do_without_a_kernel(
    private: Path, monkeypatch: pytest.MonkeyPatch, compiler: str, reason: str
) -> None:
    """Whatever a compiler does, an optimizer steps, and says why there is no kernel."""
    monkeypatch.setenv("CC", compiler)
    cpu_library._found.cache_clear()
    try:
        assert re.search(f"^no kernel: .*{reason}", backends()["cpu"])
        param = torch.nn.Parameter(torch.ones(3))
        param.grad = torch.ones(3)
        Lion([param], lr=0.5).step()
        assert param.tolist() == [0.5] * 3
    finally:
        cpu_library._found.cache_clear()


def test_cache_of_others_is_not_trusted(private: Path) -> None:
    """A folder that others may write to is not loaded from."""
    folder = private.parent / "cache" / "liontool"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with pytest.raises(cpu_library.NoKernelError, match=r"others may write to .*; chmod 700 it"):
        cpu_library.build(private)


def test_no_place_for_the_cache_is_a_reason(private: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that cannot be made is no error."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(private))
    cpu_library._found.cache_clear()
    try:
        assert "no kernel: " in str(cpu_library.why_none())
        with pytest.raises(cpu_library.NoKernelError, match="no kernel: "):
            Plan([])
        assert "no kernel: " in str(Plan.unsupported(*(torch.zeros(1),) * 3))
    finally:
        cpu_library._found.cache_clear()

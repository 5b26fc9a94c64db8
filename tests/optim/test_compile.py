"""`torch.compile` of a step: one graph, the bits of the eager step, and lr changes compile nothing.

Dynamo traces every configuration; inductor, which takes seconds to write and build its code,
compiles those whose arithmetic differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend
from torch.nn import Parameter

from support.lions import (
    CASES,
    KINDS,
    configurations,
    give_gradients,
    parameters,
    same,
    snapshot,
)

# Dynamo imports a part of torch that scripts some classes.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")

# What LionSF has of Lion is traced with one of the two.
TRACED = [
    (kind, name)
    for kind, name in CASES
    if name != "raise" and not (kind == "lion_sf" and name in configurations(KINDS["lion"]))
]

STATE_FIRST = pytest.mark.parametrize("state_first", [True, False], ids=["init_state", "lazily"])


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What one test has compiled is not another's."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _params() -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((17, 3), (65,), (9, 5))
    dtypes = (torch.float32, torch.float32, torch.bfloat16)
    return [
        Parameter(torch.rand(shape, generator=generator).to(dtype))
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


def _optimizer(kind: Any, **options: Any) -> Any:
    return kind(_params(), **{"lr": 0.01, **options})


def _run(optimizer: Any, step: Callable[[], Any], steps: int) -> None:
    for seed in range(steps):
        give_gradients(parameters(optimizer), seed)
        step()


def _compiled(optimizer: Any, backend: Any) -> Callable[[], Any]:
    return torch.compile(optimizer.step, fullgraph=True, backend=backend)


@pytest.mark.parametrize("case", TRACED, ids="-".join)
def test_one_graph_with_the_bits_of_eager(case: tuple[str, str]) -> None:
    """Every configuration but "raise", which must look at a value, is one graph for all steps."""
    kind, name = case
    options = configurations(KINDS[kind])[name]
    compiled, eager = (
        _optimizer(KINDS[kind], **configurations(KINDS[kind])[name]) for _ in range(2)
    )
    counter = CompileCounter()
    steps = 6 if options.get("gradient_accumulation_steps") else 4
    _run(compiled, _compiled(compiled, counter), steps)
    _run(eager, eager.step, steps)
    assert counter.frame_count == 1
    assert same(snapshot(compiled), snapshot(eager))


@STATE_FIRST
def test_state_made_before_or_at_the_first_call(kind: Any, state_first: bool) -> None:
    """It is one graph either way."""
    compiled, eager = _optimizer(kind), _optimizer(kind)
    if state_first:
        compiled.init_state()
    counter = CompileCounter()
    _run(compiled, _compiled(compiled, counter), 4)
    _run(eager, eager.step, 4)
    assert counter.frame_count == 1
    assert same(snapshot(compiled), snapshot(eager))


@STATE_FIRST
def test_groups(kind: Any, state_first: bool) -> None:
    """Several groups are one graph too."""
    pair = [kind([{"params": [p]} for p in _params()], lr=0.01) for _ in range(2)]
    if state_first:
        pair[0].init_state()
    _run(pair[0], _compiled(pair[0], CompileCounter()), 3)
    _run(pair[1], pair[1].step, 3)
    assert same(*map(snapshot, pair))


def test_raise_breaks_the_graph_and_works(kind: Any) -> None:
    """Without `fullgraph` it looks at its value between graphs, and raises where it should."""
    compiled, eager = (_optimizer(kind, nonfinite="raise") for _ in range(2))
    step = torch.compile(compiled.step, backend=CompileCounter())
    _run(compiled, step, 3)
    _run(eager, eager.step, 3)
    assert same(snapshot(compiled), snapshot(eager))
    parameters(compiled)[0].grad.fill_(float("nan"))
    with pytest.raises(RuntimeError, match="gradients are not finite"):
        step()
    assert same(snapshot(compiled), snapshot(eager))


def test_tensor_lr_never_recompiles(kind: Any) -> None:
    """Its value is read in each step; nothing is baked in."""
    lrs = [0.01, 0.02, 0.0, 0.005, 0.3]
    counter, optimizers = CompileCounter(), []
    for compiling in (True, False):
        lr = torch.tensor(0.01)
        optimizer = _optimizer(kind, lr=lr, weight_decay=0.1)
        step = _compiled(optimizer, counter) if compiling else optimizer.step
        for seed, value in enumerate(lrs):
            lr.fill_(value)
            give_gradients(parameters(optimizer), seed)
            step()
        optimizers.append(optimizer)
    assert counter.frame_count == 1
    assert same(*map(snapshot, optimizers))


def test_float_lr_recompiles_once(kind: Any) -> None:
    """When it first changes it becomes an input of Dynamo's graph; then it changes freely.

    What AOTAutograd and inductor make of the graph is for each value anew: a tensor lr is not.
    """
    lrs = [0.01, 0.01, 0.02, 0.03, 0.005, 0.3]
    counter, optimizers = CompileCounter(), []
    for compiling in (True, False):
        optimizer = _optimizer(kind, weight_decay=0.1)
        step = _compiled(optimizer, counter) if compiling else optimizer.step
        for seed, value in enumerate(lrs):
            optimizer.param_groups[0]["lr"] = value
            give_gradients(parameters(optimizer), seed)
            step()
        optimizers.append(optimizer)
    assert counter.frame_count <= 2
    assert same(*map(snapshot, optimizers))


def test_scheduler_in_a_compiled_function(kind: Any) -> None:
    """The recipe of torch's documentation: a tensor lr and its scheduler compile nothing anew."""
    counter = CompileCounter()
    optimizer = _optimizer(kind, lr=torch.tensor(0.01))
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, total_iters=5)

    @torch.compile(backend=counter)
    def step() -> None:
        optimizer.step()
        scheduler.step()

    counts = []
    for seed in range(5):
        give_gradients(parameters(optimizer), seed)
        step()
        counts.append(counter.frame_count)
    assert counts[0] > 0
    assert counts[1:] == counts[1:2] * 4
    assert optimizer.param_groups[0]["lr"].item() == pytest.approx(0.01)


INDUCED: dict[str, tuple[str, dict[str, Any]]] = {
    "lion": ("lion", {"weight_decay": 0.1}),
    "lion_sf": ("lion_sf", {"weight_decay": 0.1}),
    "cautious": ("lion", {"cautious_factor": 0.0, "weight_decay": 0.1}),
    "horizon": ("lion", {"lr": torch.tensor(0.01), "weight_decay": 0.1}),
    "split": ("lion", {"rounding": "split", "weight_decay": 0.1}),
    "stochastic": ("lion", {"rounding": "stochastic"}),
}


@pytest.mark.parametrize("name", INDUCED)
def test_inductor_gives_the_bits_of_eager(name: str) -> None:
    """Over 200 steps: no fused multiply-add, no other order; and `0 * mix` does not become 0."""
    kind, options = INDUCED[name]
    compiled, eager = (_optimizer(KINDS[kind], **options) for _ in range(2))
    if name == "horizon":
        for optimizer in (compiled, eager):
            optimizer.param_groups[0]["horizon"] = 10.0
    counter = CompileCounterWithBackend("inductor")
    step = _compiled(compiled, counter)
    _run(compiled, step, 200)
    _run(eager, eager.step, 200)
    assert same(snapshot(compiled), snapshot(eager))
    first = parameters(compiled)[0]
    for bad in (float("nan"), float("inf")):
        give_gradients(parameters(compiled))
        first.grad[0, 1] = bad  # type: ignore[index]
        step()
        assert first.isnan().nonzero().tolist() == [[0, 1]]
    assert counter.frame_count == 1

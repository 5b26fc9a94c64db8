"""What the contract says of a GPU: graphs, syncs, streams, devices."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch.nn import Parameter

from support.lions import (
    CASES,
    KINDS,
    configurations,
    give_gradients,
    model,
    parameters,
    same,
    snapshot,
    train,
)

pytestmark = pytest.mark.gpu

TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.fixture(params=[case for case in CASES if case[1] != "raise"], ids="-".join)
def case(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any]]:
    """Either optimizer in each configuration that need not look at a value."""
    kind, name = request.param
    return KINDS[kind], configurations(KINDS[kind])[name]


@contextmanager
def _no_sync() -> Iterator[None]:
    """Within it, waiting for the device is an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def _on_gpu(kind: Any, options: dict[str, Any], **more: Any) -> Any:
    """A capturable one; its lr, if a tensor, is on the device."""
    given = {**copy.deepcopy(options), "capturable": True, **more}
    if isinstance(given.get("lr"), torch.Tensor):
        given["lr"] = given["lr"].cuda()
    return kind(model().cuda().parameters(), **given)


def test_gpu_gives_the_bits_of_the_cpu(case: tuple[Any, dict[str, Any]]) -> None:
    """Weights, state and counters, where no norm is taken in another order."""
    kind, options = case
    if options.keys() & {"clipnorm", "global_clipnorm"}:
        pytest.skip("sums of squares may differ in the last bit")
    there, here = _on_gpu(kind, options), kind(model().parameters(), **copy.deepcopy(options))
    train(there, 20)
    train(here, 20)
    assert same(snapshot(there), snapshot(here))


def test_captured_step_replays(case: tuple[Any, dict[str, Any]]) -> None:
    """A step in a CUDA graph does, replayed, what it does eagerly; counters count on."""
    kind, options = case
    captured, eager = _on_gpu(kind, options), _on_gpu(kind, options)
    for optimizer in (captured, eager):
        give_gradients(parameters(optimizer))
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            captured.step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.step()
    for _ in range(4):
        graph.replay()
    for _ in range(7):
        eager.step()
    assert same(snapshot(captured), snapshot(eager))


def test_capture_without_capturable_is_refused(kind: Any) -> None:
    """In torch's words, instead of a graph with numbers baked in."""
    optimizer = kind(model().cuda().parameters(), capturable=False)
    train(optimizer, 1)
    with (
        pytest.raises(RuntimeError, match="capturable"),
        torch.cuda.graph(torch.cuda.CUDAGraph()),
    ):
        optimizer.step()


def test_capturable_step_does_not_sync(case: tuple[Any, dict[str, Any]]) -> None:
    """Nor with a tensor lr on the device, nor with a scaler's scale and flag."""
    kind, options = case
    optimizer = _on_gpu(kind, options)
    train(optimizer)
    give_gradients(parameters(optimizer))
    optimizer.grad_scale = torch.tensor(4.0, device="cuda")
    optimizer.found_inf = torch.tensor(0.0, device="cuda")
    with _no_sync():
        optimizer.step()


def test_default_step_does_not_sync(kind: Any) -> None:
    """With a float lr and nothing to look for, also without capturable."""
    optimizer = kind(model().cuda().parameters(), weight_decay=0.1)
    train(optimizer)
    give_gradients(parameters(optimizer))
    with _no_sync():
        optimizer.step()


def test_scaler_on_the_gpu_changes_nothing_on_infinities(
    case: tuple[Any, dict[str, Any]],
) -> None:
    """Not a bit, counters included."""
    kind, options = case
    optimizer = _on_gpu(kind, options)
    train(optimizer)
    scaler = torch.amp.GradScaler("cuda", init_scale=4.0)
    scaler.scale(torch.zeros((), device="cuda"))
    before = snapshot(optimizer)
    give_gradients(parameters(optimizer))
    parameters(optimizer)[0].grad[0, 0] = float("inf")  # type: ignore[index]
    scaler.step(optimizer)
    scaler.update()
    assert same(snapshot(optimizer), before)


def test_counters_move_with_the_weights(kind: Any) -> None:
    """A model that goes to the device after the optimizer was made takes them along."""
    net = model()
    optimizer = kind(net.parameters(), capturable=True)
    net.cuda()
    train(optimizer, 2)
    group = optimizer.param_groups[0]
    assert group["step"].device.type == group["micro_step"].device.type == "cuda"
    assert group["step"].item() == 2


def test_first_step_on_a_new_shape_is_one_step(case: tuple[Any, dict[str, Any]]) -> None:
    """Trying out launch configurations must not apply a step twice."""
    kind, options = case
    for numel in (1, 63, 1003, 4096, 70_001):
        results = []
        for foreach, fused in ((False, False), (None, None)):
            torch.manual_seed(0)
            param = Parameter(torch.rand(numel, device="cuda"))
            given = {"lr": 0.01, **copy.deepcopy(options), "foreach": foreach, "fused": fused}
            optimizer = kind([param], **given)
            train(optimizer, 2)
            results.append(snapshot(optimizer))
        assert same(*results)


def test_step_runs_on_the_current_stream(kind: Any) -> None:
    """What was queued on it before is seen, what comes after sees the step."""
    param = Parameter(torch.zeros(1 << 20, device="cuda"))
    optimizer = kind([param], lr=0.5)
    param.grad = torch.zeros_like(param)
    optimizer.step()
    torch.cuda.synchronize()
    with torch.cuda.stream(torch.cuda.Stream()):
        torch.cuda._sleep(50_000_000)
        param.grad.fill_(1.0)
        optimizer.step()
        after = param.detach().clone()
    torch.cuda.synchronize()
    assert torch.equal(after, torch.full_like(after, -0.5))


@TWO_GPUS
def test_current_device_does_not_matter(kind: Any) -> None:
    """Weights on the second GPU step while the first is current."""
    param = Parameter(torch.ones(1003, device="cuda:1"))
    optimizer = kind([param], lr=0.25)
    param.grad = torch.ones_like(param)
    with torch.cuda.device(0):
        optimizer.step()
    assert torch.equal(param.detach(), torch.full_like(param, 0.75))

"""Sharded tensors whose values say where they come from; each function runs on every rank."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from unittest import mock

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.distributed.tensor.placement_types import _StridedShard

from liontool.optim import LionSF, _sharding

SHAPES = [(7, 3), (5, 5), (8, 8), (3, 2), (1, 1)]


def on_four() -> dict[str, Any]:
    """Every check that wants 4 ranks."""
    return {check.__name__: check() for check in (places, sums, sums_of_a_stage, flags, gradients)}


def on_two() -> dict[str, Any]:
    """Every check that wants 2 ranks."""
    checks = (no_place, foreign_gradient, memory_is_shared, gathered, compiled, lone_row)
    return {check.__name__: check() for check in checks}


def numbered(*shape: int) -> Tensor:
    """Each element is its own row-major number."""
    return torch.arange(math.prod(shape), dtype=torch.float32).view(shape)


def places() -> dict[str, tuple[Tensor, Tensor]]:
    """For each layout, the places and the values of the local piece of a numbered tensor."""
    return {
        name: (_sharding.index(param), _sharding.local(param).detach().long())
        for name, param in _layouts().items()
    }


def no_place() -> list[str]:
    """What is said of layouts that no mesh explains: unknown strides, pieces of odd sizes."""
    mesh = init_device_mesh("cpu", (2,))
    strided = distribute_tensor(numbered(6), mesh, [_StridedShard(0, split_factor=3)])
    piece = numbered(1 + distributed.get_rank())
    odd = DTensor.from_local(piece, mesh, [Shard(0)], shape=torch.Size([3]), stride=(1,))
    return [said(_sharding.index, strided), said(_sharding.index, odd)]


def sums() -> dict[str, Any]:
    """Local counts, and random float64 values, summed over a mesh with replicas and both shards."""
    params = _mixture()
    torch.manual_seed(distributed.get_rank())
    noise = [torch.randn(3, dtype=torch.float64) for _ in params]
    with mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce) as spy:
        counts = _sharding.summed([_count(param) for param in params], params)
        calls = spy.call_count
        reals = _sharding.summed(noise, params)
    full = [param.numel() for param in params]
    return {"counts": counts, "full": full, "calls": calls, "noise": noise, "reals": reals}


def sums_of_a_stage() -> tuple[list[Tensor], list[int]]:
    """Counts of parameters on a two-dimensional part of the world, and how large they are."""
    mesh = init_device_mesh("cpu", (2, 2, 1), mesh_dim_names=("stage", "data", "model"))
    mesh = mesh["data", "model"]
    cuts = [[Shard(0), Shard(0)], [Shard(0), Replicate()], [Replicate(), Replicate()]]
    # The stages have different parameters.
    size = 5 + 2 * (distributed.get_rank() // 2)
    params = [distribute_tensor(numbered(size), mesh, cut) for cut in cuts]
    sums = _sharding.summed([_count(param) for param in params], params)
    return sums, [param.numel() for param in params]


def flags() -> list[bool]:
    """Whether a flag that one rank sets is seen here, for each rank that sets it; last: none."""
    params, rank = _mixture(), distributed.get_rank()
    seen = [_sharding.any_rank(torch.tensor(rank == at), params) for at in range(5)]
    return [bool(flag) for flag in seen]


def gradients() -> dict[str, bool]:
    """Gradients in other placements than their parameter's, and whether they come out right."""
    mesh = init_device_mesh("cpu", (4,))
    param = distribute_tensor(torch.zeros(7, 3), mesh, [Shard(0)])
    expected = distribute_tensor(numbered(7, 3), mesh, [Shard(0)]).to_local()
    grads = {
        "same": distribute_tensor(numbered(7, 3), mesh, [Shard(0)]),
        "replicated": distribute_tensor(numbered(7, 3), mesh, [Replicate()]),
        "other": distribute_tensor(numbered(7, 3), mesh, [Shard(1)]),
        "partial": DTensor.from_local(numbered(7, 3) / 4, mesh, [Partial()]),
    }
    results = {name: _sharding.like_param(grad, param) for name, grad in grads.items()}
    return {name: torch.equal(grad, expected) for name, grad in results.items()}


def foreign_gradient() -> str:
    """What is said of a plain gradient of a sharded parameter."""
    mesh = init_device_mesh("cpu", (2,))
    param = distribute_tensor(torch.zeros(4), mesh, [Shard(0)])
    return said(_sharding.like_param, torch.zeros(4), param)


def memory_is_shared() -> bool:
    """Whether a change of the local piece is a change of the parameter."""
    mesh = init_device_mesh("cpu", (2,))
    param = nn.Parameter(distribute_tensor(torch.zeros(3), mesh, [Shard(0)]))
    with torch.no_grad():
        _sharding.local(param).add_(1.0)
        return bool((param.full_tensor() == 1).all())


def gathered() -> bool:
    """Whether sharded int16 values can be put together, and float32 stays as it is."""
    mesh = init_device_mesh("cpu", (2,))
    wide = distribute_tensor(numbered(5), mesh, [Shard(0)])
    narrow = _sharding.gatherable(wide.short())
    same = _sharding.gatherable(wide) is wide
    return same and torch.equal(narrow.full_tensor(), numbered(5).int())


def compiled() -> bool:
    """Whether one graph without breaks gives what the plain calls give."""
    mesh = init_device_mesh("cpu", (2,))
    params = [distribute_tensor(numbered(5, 3), mesh, [Shard(0)]), numbered(3)]
    graph = torch.compile(_everything, backend="aot_eager", fullgraph=True)
    return all(map(torch.equal, graph(params), _everything(params)))


def fails_on_rank_1() -> int:
    """A rank that raises while another waits for it."""
    if distributed.get_rank() == 1:
        raise LookupError("lost")
    distributed.barrier()
    return 0


def said(function: Callable[..., Any], *args: Any) -> str:
    """The type and the words of what a call raises."""
    try:
        function(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def _everything(params: list[Tensor]) -> list[Tensor]:
    with torch.no_grad():
        sums = _sharding.summed([_count(param) for param in params], params)
        return [*sums, _sharding.any_rank(sums[0] > 3, params), *map(_sharding.index, params)]


def _count(param: Tensor) -> Tensor:
    piece = _sharding.local(param)
    return torch.ones_like(piece, dtype=torch.int64).sum()


def _mixture() -> list[Tensor]:
    """Every kind of cut on a 2 x 2 mesh, uneven, and a plain tensor among them."""
    mesh = init_device_mesh("cpu", (2, 2))
    cuts = [[Shard(0), Replicate()], [Replicate(), Shard(0)], [Shard(0), Shard(1)],
            [Shard(0), Shard(0)], [_StridedShard(0, split_factor=2), Shard(0)],
            [Replicate(), Replicate()]]  # fmt: skip
    sharded = [distribute_tensor(numbered(8, 3), mesh, cut) for cut in cuts]
    return [*sharded[:3], numbered(5), *sharded[3:]]


def _layouts() -> dict[str, Tensor]:
    line, square = init_device_mesh("cpu", (4,)), init_device_mesh("cpu", (2, 2))
    cuts: list[tuple[DeviceMesh, list[Any]]] = [
        (line, [Shard(0)]), (line, [Shard(1)]), (square, [Replicate(), Shard(0)]),
        (square, [Shard(0), Shard(0)]), (square, [Shard(0), Shard(1)]),
        (square, [Replicate(), Replicate()]),
    ]  # fmt: skip
    layouts: dict[str, Tensor] = {
        f"{shape} {tuple(map(str, cut))} on {tuple(mesh.shape)}": distribute_tensor(
            numbered(*shape), mesh, cut
        )
        for shape in SHAPES
        for mesh, cut in cuts
    }
    layouts["plain, transposed"] = numbered(4, 3).t().contiguous().t()
    layouts["0-d"] = distribute_tensor(numbered(), line, [Replicate()])
    for shape in SHAPES:
        layouts |= _after_tensor_parallelism(*shape)
    return layouts


def _after_tensor_parallelism(rows: int, columns: int) -> dict[str, Tensor]:
    mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("data", "model"))
    model = nn.Sequential(nn.Linear(columns, rows), nn.Linear(rows, columns))
    with torch.no_grad():
        for param in model.parameters():
            param.copy_(numbered(*param.shape))
    parallelize_module(model, mesh["model"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
    fully_shard(model, mesh=mesh["data"])
    return {f"{rows} x {columns} FSDP and TP {n}": p for n, p in model.named_parameters()}


def lone_row() -> Tensor:
    """A weight of one row, all of it on the first rank, after a step that counts over shards."""
    mesh = init_device_mesh("cpu", (2,))
    param = nn.Parameter(distribute_tensor(torch.ones(1), mesh, [Shard(0)]))
    param.grad = distribute_tensor(torch.ones(1), mesh, [Shard(0)])
    LionSF([param], lr=0.25).step()
    return param.full_tensor().detach()

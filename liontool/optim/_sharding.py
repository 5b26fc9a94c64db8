"""Sharded parameters: their local pieces, sums over all pieces, places in the full tensor.

A sharded parameter is a DTensor, as `fully_shard`, `distribute_tensor` and `parallelize_module`
make it. Everything elementwise works on the local pieces. All collectives of a step are here, and
each takes the values of all parameters together. Without DTensors nothing here imports
torch.distributed.
"""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.tensor import DTensor


def local(tensor: Tensor) -> Tensor:
    """This rank's piece of a DTensor, sharing its memory; any other tensor itself."""
    return tensor.to_local() if _is_dtensor(tensor) else tensor


def is_sharded(tensor: Tensor) -> bool:
    """Whether ranks hold different pieces of it; one of them may hold all, and others nothing."""
    return _is_dtensor(tensor) and not all(cut.is_replicate() for cut in tensor.placements)


def like_param(grad: Tensor, param: Tensor) -> Tensor:
    """The local piece of a gradient, cut as the parameter is cut; pending sums are made.

    Raises:
        ValueError: Only one of the two is a DTensor.
    """
    if _is_dtensor(grad) != _is_dtensor(param):
        raise ValueError(
            f"a parameter is a {type(param).__name__} and its gradient a {type(grad).__name__}; "
            "both must be DTensors or neither: cut the gradient with distribute_tensor(gradient, "
            "parameter.device_mesh, parameter.placements)"
        )
    if _is_dtensor(grad) and _is_dtensor(param) and grad.placements != param.placements:
        grad = grad.redistribute(placements=param.placements)
    return local(grad)


def summed(values: list[Tensor], params: list[Tensor]) -> list[Tensor]:
    """Sums of each parameter's pieces of a value, equal in bits on all ranks of its mesh.

    Replicas are not counted twice: of each piece, only the first replica contributes. So replicas
    cannot drift apart either, in whatever order floats are summed. One all-reduce for all
    parameters of a mesh together (one per dimension where a mesh of many dimensions is only a part
    of the world).

    Args:
        values: One tensor per parameter, from its local piece; all of one dtype and shape.
        params: The parameters; all ranks of a mesh must come here with the same ones.

    Returns:
        The sums; the values themselves of parameters that are not sharded.
    """
    sums = list(values)
    for mesh, members in _by_mesh(params, is_sharded).items():
        own = [_unless_replica(values[i], params[i]) for i in members]
        total = _all_reduced(torch.stack(own), mesh, "SUM")
        for i, value in zip(members, total.unbind(), strict=True):
            sums[i] = value
    return sums


def gatherable(tensor: Tensor) -> Tensor:
    """An int16 tensor as int32, any other itself. Neither gloo nor NCCL can send int16."""
    return tensor.int() if tensor.dtype == torch.int16 else tensor


def any_rank(flag: Tensor, params: list[Tensor]) -> Tensor:
    """A flag that is set on all ranks of the parameters' meshes if it is set on one of them."""
    for mesh in _by_mesh(params, _is_dtensor):
        flag = _all_reduced(flag.int(), mesh, "MAX").bool()
    return flag


def index(param: Tensor) -> Tensor:
    """Where each local element lies in the full tensor: its row-major number, whatever the strides.

    Raises:
        NotImplementedError: The parameter is cut in a way that tells no such place.
    """
    piece = local(param)
    places = torch.zeros((), dtype=torch.int64, device=piece.device)
    stride = 1
    for dim in reversed(range(param.ndim)):
        rows = _rows(param, dim, piece.device) * stride
        places = places + rows.view(-1, *[1] * (param.ndim - 1 - dim))
        stride *= param.shape[dim]
    if places.shape != piece.shape and places.numel() + piece.numel() > 0:
        raise _no_place(param)
    return places.view(piece.shape)  # torch knows more than one shape without elements


def _is_dtensor(tensor: Tensor) -> TypeGuard[DTensor]:
    if type(tensor) is Tensor or type(tensor) is torch.nn.Parameter:
        return False
    # Whoever has a DTensor has imported this, which alone takes half a second.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)


def _by_mesh(params: list[Tensor], kind: Any) -> dict[DeviceMesh, list[int]]:
    """The positions of the parameters of a kind, by mesh, in an order that all ranks share."""
    meshes: dict[DeviceMesh, list[int]] = {}
    for i, param in enumerate(params):
        if kind(param) and _is_dtensor(param):
            meshes.setdefault(param.device_mesh, []).append(i)
    return meshes


def _unless_replica(value: Tensor, param: Tensor) -> Tensor:
    """The value on the ranks that are first among their replicas, zero on the others."""
    assert _is_dtensor(param)
    where = param.device_mesh.get_coordinate() or ()
    pairs = zip(where, param.placements, strict=True)
    first = all(at == 0 for at, cut in pairs if cut.is_replicate())
    return value if first else torch.zeros_like(value)


def _all_reduced(tensor: Tensor, mesh: DeviceMesh, op: str) -> Tensor:
    """The reduction over all ranks of a mesh; the tensor is used up."""
    from torch import distributed

    # Parameters offloaded to the CPU have a mesh whose groups may know GPUs alone.
    moved = tensor if tensor.device.type == mesh.device_type else tensor.to(mesh.device_type)
    for group in _groups(mesh):
        distributed.all_reduce(moved, getattr(distributed.ReduceOp, op), group=group)
    return moved.to(tensor.device)


def _groups(mesh: DeviceMesh) -> list[ProcessGroup | None]:
    """The groups to reduce over, one after the other; None is the group of all processes."""
    from torch import distributed

    if mesh.ndim > 1 and mesh.size() == distributed.get_world_size() > 1:
        return [None]
    return [mesh.get_group(dim) for dim in range(mesh.ndim) if mesh.size(dim) > 1]


def _rows(param: Tensor, dim: int, device: torch.device) -> Tensor:
    """The places along a dimension that this rank holds."""
    rows = torch.arange(param.shape[dim], device=device)
    if not _is_dtensor(param):
        return rows
    mesh = param.device_mesh
    where = mesh.get_coordinate() or (0,) * mesh.ndim
    for mesh_dim in _order_of_cuts(param, dim):
        size = -(-len(rows) // mesh.size(mesh_dim))  # rounded up, as torch.chunk does
        rows = rows[where[mesh_dim] * size : (where[mesh_dim] + 1) * size]
    return rows


def _order_of_cuts(param: DTensor, dim: int) -> list[int]:
    """The mesh dimensions that cut a dimension of a parameter, in the order that they cut.

    Cuts go from the left of the mesh to the right, but for a `_StridedShard`, which FSDP2 makes
    after tensor parallelism that stands to its right: its factor is into how many parts the cuts
    that went before have cut already.
    """
    order: list[int] = []
    for mesh_dim in reversed(range(len(param.placements))):
        cut: Any = param.placements[mesh_dim]
        if cut.is_replicate() or getattr(cut, "dim", None) != dim:
            continue
        sizes = [param.device_mesh.size(earlier) for earlier in order]
        parts = [math.prod(sizes[:count]) for count in range(len(sizes) + 1)]
        factor = getattr(cut, "split_factor", 1)
        if factor not in parts:
            raise _no_place(param)
        order.insert(parts.index(factor), mesh_dim)
    return order


def _no_place(param: Tensor) -> NotImplementedError:
    assert _is_dtensor(param)
    return NotImplementedError(
        f"a parameter of shape {tuple(param.shape)} has placements {param.placements} on a mesh of "
        f"shape {tuple(param.device_mesh.shape)}, which do not tell which elements this rank "
        'holds; use rounding="split" or "nearest", or shard it with fully_shard'
    )

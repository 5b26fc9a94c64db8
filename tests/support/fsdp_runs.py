"""The same gradients on one process and on shards of many, for every option of the optimizers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.distributed.tensor.debug import CommDebugMode
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from liontool.optim import Lion, LionSF, _sharding
from liontool.optim._base import LionBase


@dataclass(frozen=True)
class Case:
    """A training run.

    Attributes:
        kind: The optimizer.
        options: Its options, beside an lr and a weight decay.
        dtype: Of the weights.
        steps: How many gradients.
        bad_steps: Where one element of one gradient, on one rank, is NaN.
        layout: "line" is one mesh dimension, "hybrid" replicates and shards, "tensor" is FSDP
            after tensor parallelism.
        collectives: How many a step makes.
    """

    kind: Any = Lion
    options: dict[str, Any] = field(default_factory=dict)
    dtype: torch.dtype = torch.float32
    steps: int = 30
    bad_steps: tuple[int, ...] = ()
    layout: str = "line"
    collectives: int = 0


AGREEMENTS = ("tensor", "group", "tensor_signed", "group_signed")
ALL_AT_ONCE = {
    "rounding": "stochastic", "state_dtype": torch.float32, "agreement": "group",
    "cautious_factor": 0.5, "nonfinite": "skip", "use_ema": True,
    "gradient_accumulation_steps": 3,
}  # fmt: skip


def _all_at_once(layout: str) -> Case:
    # The last of 32 gradients, two of them bad, ends a sum of 3.
    return Case(LionSF, ALL_AT_ONCE, torch.bfloat16, 32, (4, 9), layout, collectives=2)


CASES: dict[str, Case] = {
    "lion": Case(steps=200),
    "loop": Case(options={"foreach": False, "fused": False}),
    "foreach": Case(options={"foreach": True}),
    "float64": Case(dtype=torch.float64),
    "maximize": Case(options={"maximize": True, "decoupled_weight_decay": True}),
    "clipvalue": Case(options={"clipvalue": 0.4, "loss_scale_factor": 4.0}),
    "cautious": Case(options={"cautious_factor": 0.0}, collectives=1),
    "half cautious": Case(options={"cautious_factor": 0.5}, collectives=1),
    **{
        f"lion_sf {agreement}": Case(LionSF, {"agreement": agreement}, collectives=1)
        for agreement in AGREEMENTS
    },
    "cautious lion_sf": Case(LionSF, {"cautious_factor": 0.5, "pow": 2.0}, collectives=1),
    "bfloat16": Case(dtype=torch.bfloat16),
    "split": Case(options={"rounding": "split"}, dtype=torch.bfloat16),
    "stochastic": Case(options={"rounding": "stochastic"}, dtype=torch.bfloat16),
    "propagate": Case(bad_steps=(4,)),
    "skip": Case(options={"nonfinite": "skip"}, bad_steps=(0, 4, 9), collectives=1),
    "skip lion_sf": Case(LionSF, {"nonfinite": "skip"}, bad_steps=(4, 9), collectives=2),
    "ema": Case(options={"use_ema": True, "ema_overwrite_frequency": 7}),
    "accumulation": Case(options={"gradient_accumulation_steps": 4}),
    "all at once": _all_at_once("line"),
    "all at once, hybrid": _all_at_once("hybrid"),
    "all at once, tensor": _all_at_once("tensor"),
}
# Their sums of squares are added up in another order, so they are equal but for roundings.
WITH_NORM: dict[str, Case] = {
    "clipnorm": Case(options={"clipnorm": 0.5}, collectives=1),
    "global_clipnorm": Case(LionSF, {"global_clipnorm": 1.0}, steps=200, collectives=2),
    "hybrid, clipnorm": Case(options={"clipnorm": 0.5}, layout="hybrid", collectives=1),
    "tensor, global_clipnorm": Case(
        options={"global_clipnorm": 1.0}, layout="tensor", collectives=1
    ),
}


class Odd(nn.Module):
    """Parameters that leave uneven and empty pieces on 4 ranks."""

    SHAPES = ((7, 3), (3,), (1,), (5, 2, 3), (2, 9), (8, 2))

    def __init__(self) -> None:
        super().__init__()
        self.weights = nn.ParameterList(torch.randn(shape) for shape in self.SHAPES)


def runs(names: list[str]) -> dict[str, dict[str, Any]]:
    """The named cases on the shards of this rank."""
    return {name: run({**CASES, **WITH_NORM}[name]) for name in names}


def run(case: Case) -> dict[str, Any]:
    """Train; returns local pieces with their places, counters, and the collectives of a step."""
    model = _model(case)
    params = list(model.parameters())
    # Two groups, the second with an lr and a start of its own.
    groups = [{"params": params[:2]}, {"params": params[2:], "lr": 2e-3}]
    optimizer = case.kind(groups, lr=1e-2, weight_decay=0.1, **case.options)
    optimizer.param_groups[1]["horizon"] = 10.0
    comm = CommDebugMode()
    for step in range(case.steps):
        _give_gradients(params, case, step)
        if step == case.steps - 1:
            with comm:
                optimizer.step()
        else:
            optimizer.step()
    return {"tensors": _tensors(optimizer), "counters": _counters(optimizer),
            "collectives": comm.get_total_counts()}  # fmt: skip


def weights_of_an_odd_model(dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    """Parameters with uneven and empty pieces, on a line of all ranks."""
    return list(_model(Case(dtype=dtype)).parameters())


def give(params: list[nn.Parameter], full: Callable[[torch.Size], Tensor]) -> None:
    """Each parameter gets its piece of a gradient of its full shape."""
    for param in params:
        param.grad = _piece_of(full(param.shape).to(param.dtype), param)


def full(tensor: Tensor) -> Tensor:
    """All pieces together."""
    tensor = tensor.detach()
    if not isinstance(tensor, DTensor):
        return tensor.clone()
    # No backend gathers int16.
    return (
        tensor.int().full_tensor().short() if tensor.dtype == torch.int16 else tensor.full_tensor()
    )


def trained(steps: int) -> dict[str, Tensor]:
    """Real training with backward, on the same data everywhere; the full weights."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 7), nn.Tanh(), nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 1))
    if distributed.is_initialized():
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
    optimizer = LionSF(model.parameters(), lr=1e-3, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        data = torch.randn(8, 3, generator=generator)
        (model(data) - data.prod(1, keepdim=True)).square().mean().backward()
        optimizer.step()
    return {name: full(param) for name, param in model.named_parameters()}


def _model(case: Case) -> nn.Module:
    torch.manual_seed(0)
    if case.layout == "tensor":
        model: nn.Module = nn.Sequential(nn.Linear(5, 7), nn.Linear(7, 5)).to(case.dtype)
    else:
        model = Odd().to(case.dtype)
    if distributed.is_initialized():
        _shard(model, case.layout)
    return model


def _shard(model: nn.Module, layout: str) -> None:
    world = distributed.get_world_size()
    if layout == "line":
        fully_shard(model, mesh=init_device_mesh("cpu", (world,)))
    elif layout == "hybrid":
        shape = (world // 2, 2)
        fully_shard(model, mesh=init_device_mesh("cpu", shape, mesh_dim_names=("copy", "cut")))
    else:
        mesh = init_device_mesh("cpu", (world // 2, 2), mesh_dim_names=("data", "model"))
        parallelize_module(model, mesh["model"], {"0": ColwiseParallel(), "1": RowwiseParallel()})
        fully_shard(model, mesh=mesh["data"])


def _give_gradients(params: list[nn.Parameter], case: Case, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for place, param in enumerate(params):
        noise = torch.randn(param.shape, generator=generator)
        grad = torch.where(noise.abs() < 0.1, 0.0, noise + 0.3 * place).to(case.dtype)
        if place == 0 and step in case.bad_steps:
            grad[0, 0] = torch.nan
        param.grad = _piece_of(grad, param)


def _piece_of(whole: Tensor, param: Tensor) -> Tensor:
    if not isinstance(param, DTensor):
        return whole
    piece = whole.flatten()[_sharding.index(param)]
    return DTensor.from_local(
        piece, param.device_mesh, param.placements, shape=whole.shape, stride=whole.stride()
    )


def _tensors(optimizer: LionBase) -> list[dict[str, Tensor]]:
    """For each parameter: where its piece lies, its weights, its state."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    with torch.no_grad():
        return [
            {
                "places": _sharding.index(param),
                "weight": _sharding.local(param),
                **{name: _sharding.local(value) for name, value in optimizer.state[param].items()},
            }
            for param in params
        ]


def _counters(optimizer: LionBase) -> list[tuple[int, int]]:
    return [(int(group["step"]), int(group["micro_step"])) for group in optimizer.param_groups]

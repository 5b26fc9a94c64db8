"""Compiles steps on the Triton kernels under Triton's interpreter, beside the loop.

A process of its own, for the reason of `triton_runs`. Prints for each configuration what its graphs
do with tensors, and whether weights, state and counters have the bits of the loop.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import Parameter

from liontool.optim._base import LionBase
from support.lions import same, snapshot
from support.triton_runs import CASES, KINDS, SHAPES

STEPS = 5
MANY = 20  # of those without options
FOUND_INF = [0.0, 1.0, 0.0, 0.0, 1.0]

# How a step is traced differs in these; what the kernels make of options is tested elsewhere.
NAMES = {
    "lion": [
        "plain", "masked", "global_clipnorm", "tensor lr", "average", "split", "stochastic",
        "scaled", "two groups",
    ],
    "lion_sf": ["plain", "scaled"],
    "lion_sf group_signed": ["two groups"],
}  # fmt: skip
INDUCED = ("lion_sf group_signed", "split")


def _optimizer(kind: str, name: str, **more: Any) -> LionBase:
    options = dict(CASES.get(name, {}))
    dtype = options.pop("dtype", torch.float32)
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    if name != "stochastic":
        # Its gradients, which have another layout, are copied within the operator.
        params[1] = Parameter(params[1].detach().t().contiguous().t())
    groups: Any = params
    if name == "two groups":
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.1, "maximize": True}]
    if isinstance(options.get("lr"), Tensor):
        options["lr"] = options["lr"].clone()
    optimizer: LionBase = KINDS[kind](groups, **{"lr": 1e-2, **options, **more})
    for group in optimizer.param_groups:
        group["horizon"] = 10.0
    return optimizer


def _train(optimizer: LionBase, name: str, step: Callable[[], Any]) -> list[Tensor]:
    """Weights, state and counters after some steps."""
    generator = torch.Generator().manual_seed(1)
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for number in range(MANY if name == "plain" else STEPS):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)
        if name == "scaled":
            optimizer.grad_scale = torch.tensor([8.0])  # type: ignore[attr-defined]
            optimizer.found_inf = torch.tensor([FOUND_INF[number]])  # type: ignore[attr-defined]
        if name == "tensor lr":
            optimizer.param_groups[0]["lr"].mul_(0.5)
        step()
    return snapshot(optimizer)


class Recorder:
    """A compiler that runs graphs as they are.

    Attributes:
        graphs: All of them.
    """

    def __init__(self) -> None:
        """Begin without graphs."""
        self.graphs: list[fx.Graph] = []

    def __call__(self, module: fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        """Compile a graph."""
        self.graphs.append(module.graph)
        return module.forward

    def on_tensors(self) -> list[str]:
        """The operations on tensors of more than one element."""
        calls = [node for graph in self.graphs for node in graph.nodes if "call" in node.op]
        return [str(node.target) for node in calls if any(map(_is_large, node.all_input_nodes))]


def _is_large(node: fx.Node) -> bool:
    value = node.meta.get("example_value")
    return isinstance(value, Tensor) and value.numel() > 1


def _compared(kind: str, name: str, backend: Any) -> bool:
    """Whether compiled steps have the bits of the loop."""
    torch._dynamo.reset()
    chosen, plain = _optimizer(kind, name), _optimizer(kind, name, foreach=False)
    compiled = torch.compile(chosen.step, fullgraph=True, backend=backend)
    return same(_train(chosen, name, compiled), _train(plain, name, plain.step))


def _recorded() -> list[str]:
    """The operations of a step while metrics are recorded, which need what no kernel tells."""
    torch._dynamo.reset()
    recorder, optimizer = Recorder(), _optimizer("lion", "plain")
    optimizer.step_metrics()
    compiled = torch.compile(optimizer.step, backend=recorder)
    _train(optimizer, "scaled", compiled)
    return recorder.on_tensors()


def main() -> None:
    """Print a JSON object: "kind, case" to [number of graphs, operations on tensors, equal]."""
    results: dict[str, Any] = {"inductor": _compared(*INDUCED, "inductor")}
    results["recorded"] = _recorded()
    for kind, names in NAMES.items():
        for name in names:
            recorder = Recorder()
            equal = _compared(kind, name, recorder)
            results[f"{kind}, {name}"] = [len(recorder.graphs), recorder.on_tensors(), equal]
    print(json.dumps(results))


if __name__ == "__main__":
    main()

"""Runs optimizers on the Triton kernels under Triton's interpreter, beside the loop.

A process of its own, since Triton reads TRITON_INTERPRET when it is imported. Prints for each
configuration its path and whether weights and state have the bits of the loop.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF
from liontool.optim._base import LionBase

SHAPES = [(17,), (5, 7), (2, 3, 4), (1,), (), (0,)]
STEPS = 4
# Many steps take the interpreter long, so these are on few elements.
MANY = 200
FEW = [(3, 7), (0,)]

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "maximize": {"maximize": True, "weight_decay": 0.1},
    "decoupled": {"decoupled_weight_decay": True, "weight_decay": 0.1},
    "masked": {"cautious_factor": 0.0},
    "global_clipnorm": {"global_clipnorm": 0.1},
    "capturable": {"capturable": True},
    "tensor lr": {"lr": torch.tensor(1e-2)},
    "bfloat16 momentum": {"state_dtype": torch.bfloat16},
    "average": {"use_ema": True, "ema_overwrite_frequency": 2},
    "bfloat16": {"dtype": torch.bfloat16},
    "float16": {"dtype": torch.float16},
    "split": {"dtype": torch.bfloat16, "rounding": "split", "weight_decay": 0.1},
    "stochastic": {"dtype": torch.bfloat16, "rounding": "stochastic"},
}
KINDS: dict[str, Any] = {
    "lion": Lion,
    "lion_sf": LionSF,
    "lion_sf group_signed": lambda *given, **options: LionSF(
        *given, agreement="group_signed", pow=0.7, **options
    ),
}

LONG = ("lion", "lion_sf")


def _train(
    kind: str,
    dtype: torch.dtype = torch.float32,
    shapes: Sequence[tuple[int, ...]] = SHAPES,
    steps: int = STEPS,
    **options: Any,
) -> LionBase:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]
    optimizer: LionBase = KINDS[kind](params, **{"lr": 1e-2, **options})
    optimizer.param_groups[0]["horizon"] = 10.0
    for _ in range(steps):
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator).to(dtype)
        optimizer.step()
    return optimizer


def _bits(optimizer: LionBase) -> list[Tensor]:
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [*optimizer.param_groups[0]["params"], *state]


def _path(optimizer: LionBase) -> str:
    return next(line for line in repr(optimizer).splitlines() if "path:" in line).split()[-1]


def main() -> None:
    """Print a JSON object: "kind, case" to [path, equal]."""
    runs = [(kind, name, case) for kind in KINDS for name, case in CASES.items()]
    runs += [(kind, "many steps", {"shapes": FEW, "steps": MANY}) for kind in LONG]
    print(json.dumps({f"{kind}, {name}": _compared(kind, case) for kind, name, case in runs}))


def _compared(kind: str, case: dict[str, Any]) -> list[Any]:
    chosen, plain = _train(kind, **case), _train(kind, foreach=False, **case)
    return [_path(chosen), all(map(torch.equal, _bits(chosen), _bits(plain)))]


if __name__ == "__main__":
    main()

"""Lion and LionSF as torch's optimizer tests want them described.

The classes are torch's (BSD-3); it tests its own optimizers by the same descriptions.
"""

from __future__ import annotations

import itertools
import unittest
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch.testing._internal.common_device_type import instantiate_device_type_tests
from torch.testing._internal.common_methods_invocations import DecorateInfo
from torch.testing._internal.common_optimizers import (
    ErrorOptimizerInput,
    OptimizerInfo,
    OptimizerInput,
    get_error_inputs_for_all_optims,
)

from liontool.optim import backends
from support.lions import KINDS, ONCE, WHOLE, configurations

# The imports forbid everyone in this process to set backend flags. Other tests set some.
torch.backends.__allow_nonbracketed_mutation_flag = True

PATHS = ("foreach", "fused", "differentiable")

_BAD: dict[str, dict[str, Any]] = {
    "Invalid learning rate: -1": {"lr": -1.0},
    "Invalid beta parameter at index 0: 1.0": {"lr": 1e-2, "betas": (1.0, 0.0)},
    "Invalid beta parameter at index 1: -0.5": {"betas": (0.5, -0.5)},
    "Invalid weight_decay value: -1": {"weight_decay": -1},
    "Invalid rounding: 'up'": {"rounding": "up"},
    "Invalid foreach: True with differentiable=True": {"foreach": True, "differentiable": True},
    "Invalid fused: True with foreach=True": {"foreach": True, "fused": True},
}


def infos(leave_out: tuple[str, ...] = ()) -> list[OptimizerInfo]:
    """The descriptions of both; no input has one of the options to leave out."""
    return [_info(kind, leave_out) for kind in KINDS.values()]


def infos_for_torchs_file() -> list[OptimizerInfo]:
    """Without the options that torch's test_optim.py cannot know.

    It gives options to one of two groups, cuts a complex tensor in two, takes any dtype, and would
    have a kernel for all options and all dtypes or for none.
    """
    described = infos((*ONCE, *WHOLE, "rounding", "state_dtype"))
    for info in described:
        info.supports_fused_on = ()
    return described


def paths(
    device: str,
    info: OptimizerInfo,
    differentiable: bool = False,
    dtype: torch.dtype = torch.float32,
) -> list[OptimizerInput]:
    """Each input of `info` on the loop, with foreach, fused and, where asked, differentiable.

    Args:
        device: Where the parameters are.
        info: An optimizer.
        differentiable: Whether that is a path too.
        dtype: Of the parameters; some have no kernel.
    """
    flags = ("foreach", "differentiable") if differentiable else ("foreach",)
    chosen = [dict.fromkeys(flags, False), *({flag: True} for flag in flags), {"fused": True}]
    return [
        OptimizerInput(None, {**deepcopy(each.kwargs), **path}, f"{each.desc} {path}")
        for each, path in itertools.product(info.optim_inputs_func(device=device), chosen)
        if not path.get("fused") or has_kernel(device, info, each.kwargs, dtype)
    ]


def has_kernel(
    device: str, info: OptimizerInfo, options: dict[str, Any], dtype: torch.dtype
) -> bool:
    """Whether the path that nobody chose is a kernel; complex parameters have none."""
    if dtype.is_complex:
        return False
    param = torch.nn.Parameter(torch.ones(1, device=device, dtype=dtype))
    shown = repr(info.optim_cls([param], **deepcopy(options)))
    return any(f"path: {name}\n" in shown for name in ("cpu", "triton"))


def on_each_device(tests: type, scope: dict[str, Any], *devices: str) -> None:
    """Put a copy of a class of tests for each device into `scope`; that for CUDA is marked so."""
    instantiate_device_type_tests(tests, scope, only_for=devices or ("cpu", "cuda"))
    for name in scope.keys() & {f"{tests.__name__}CUDA"}:
        scope[name] = pytest.mark.gpu(scope[name])


def _info(kind: Any, leave_out: tuple[str, ...]) -> OptimizerInfo:
    def inputs(device: Any = None, dtype: torch.dtype | None = None) -> list[OptimizerInput]:
        return [
            OptimizerInput(params=None, kwargs=options, desc=name)
            for name, options in configurations(kind).items()
            if not set(options) & set(leave_out)
        ]

    return OptimizerInfo(
        kind,
        optim_inputs_func=inputs,
        optim_error_inputs_func=_error_inputs,
        supported_impls=PATHS,
        supports_fused_on=_devices_with_kernels(),
        not_og_supported_flags=(*PATHS, "maximize", "capturable"),
        has_capturable_arg=True,
        skips=_skips(kind),
    )


def _devices_with_kernels() -> tuple[str, ...]:
    kernels = {"cpu": "cpu", "cuda": "triton"}
    return tuple(device for device, name in kernels.items() if backends()[name] == "available")


def _error_inputs(device: Any, dtype: torch.dtype) -> list[ErrorOptimizerInput]:
    own = [
        ErrorOptimizerInput(
            OptimizerInput(params=None, kwargs=options, desc=message),
            error_type=ValueError,
            error_regex=message,
        )
        for message, options in _BAD.items()
    ]
    return get_error_inputs_for_all_optims(device, dtype) + own


def _skips(kind: Any) -> list[DecorateInfo]:
    """What does not hold of ours in torch's own class of tests."""
    default = unittest.skip("the fastest path is the default, which need not be foreach")
    agreement = unittest.skip("LionSF's scale is that of a whole tensor, which this cuts in two")
    skips = [DecorateInfo(default, "TestOptimRenewed", "test_defaults_changed_to_foreach")]
    if kind is KINDS["lion_sf"]:
        skips.append(DecorateInfo(agreement, "TestOptimRenewed", "test_complex_2d"))
    return skips

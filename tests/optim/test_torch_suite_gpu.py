"""What torch tests of its own optimizers, of both Lions: what only a GPU can show."""

from __future__ import annotations

import gc
import unittest
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.testing._internal.common_device_type import largeTensorTest
from torch.testing._internal.common_optimizers import OptimizerInfo, optims
from torch.testing._internal.common_utils import TestCase

from support.lions import give_gradients, model, plain, same, train
from support.optimizer_info import infos, on_each_device, paths

INFOS = infos()


class TestOnGpu(TestCase):
    """Memory, sizes, and states that move between devices."""

    @optims(INFOS)
    def test_peak_memory_foreach(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """foreach needs at most one more copy of all parameters than the loop."""
        sizes = [_peak(optim_info.optim_cls, device, foreach) for foreach in (False, True)]
        assert sizes[1] <= sizes[0] + 10 * 128 * 4

    @largeTensorTest("24GB", "cuda")
    @optims(INFOS, dtypes=[torch.float16])
    def test_large_tensor(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """A tensor of more than 2**31 elements moves to its last element."""
        param = torch.zeros(2**31 + 8, device=device, dtype=dtype)
        param.grad = torch.ones_like(param)
        optim_info.optim_cls([param], lr=0.5).step()
        assert param[[0, 2**31 - 1, 2**31, -1]].tolist() == [-0.5] * 4

    @optims(INFOS)
    def test_cpu_load_state_dict(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """A state saved on the CPU, capturable, is loaded onto the device, counters too."""
        for each in optim_info.optim_inputs_func(device="cpu"):
            options = {**each.kwargs, "capturable": True}
            first = optim_info.optim_cls(model().parameters(), **options)
            train(first)
            second = optim_info.optim_cls(model().to(device).parameters(), **options)
            second.load_state_dict(deepcopy(first.state_dict()))
            assert second.param_groups[0]["step"].device.type == "cuda", each.desc
            train(second, 1)

    @optims(INFOS)
    def test_state_dict_moves_to_the_device(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """It is not changed by that, and both go on with equal bits."""
        for each in paths("cpu", optim_info):
            if each.kwargs.get("fused"):
                continue  # the kernels of the two devices have not all options in common
            first = optim_info.optim_cls(model().parameters(), **deepcopy(each.kwargs))
            weights = train(first)
            moved = [Parameter(weight.to(device)) for weight in weights]
            second = optim_info.optim_cls(moved, **deepcopy(each.kwargs))
            saved, given = (deepcopy(first.state_dict()) for _ in range(2))
            second.load_state_dict(given)
            assert plain(saved) == plain(given), each.desc
            for seed in range(5, 8):
                assert same(*(_stepped(each, seed) for each in (first, second))), each.desc

    @optims(INFOS)
    def test_default_is_not_the_loop(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """On a GPU the path that nobody chose is a faster one."""
        optimizer = optim_info.optim_cls(model().to(device).parameters())
        train(optimizer, 1)
        assert "loop" not in repr(optimizer)

    @unittest.skipIf(torch.cuda.device_count() < 2, "needs two GPUs")
    @optims(INFOS)
    def test_two_devices(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """Parameters on two GPUs in one group move as on one, whichever is the current one."""
        for each in paths(device, optim_info):
            if each.kwargs.get("fused") and each.kwargs.keys() & {"agreement", "global_clipnorm"}:
                continue  # no kernel sums over devices
            spread, here = model().to("cuda:0"), model().to("cuda:0")
            spread[1].to("cuda:1")
            results = [
                train(optim_info.optim_cls(each_model.parameters(), **deepcopy(each.kwargs)))
                for each_model in (spread, here)
            ]
            assert same(*results), each.desc


def _peak(kind: Any, device: str, foreach: bool) -> int:
    """The most memory that a second step needs."""
    params = [torch.rand(16, 8, device=device) for _ in range(10)]
    give_gradients(params)  # type: ignore[arg-type]
    optimizer = kind(params, foreach=foreach)
    optimizer.step()
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    optimizer.step()
    return torch.cuda.max_memory_allocated()


def _stepped(optimizer: torch.optim.Optimizer, seed: int) -> list[Tensor]:
    """Copies of weights and momenta after one more step."""
    weights = train(optimizer, 1, seed)
    return weights + [state["exp_avg"].clone() for state in optimizer.state.values()]


on_each_device(TestOnGpu, globals(), "cuda")

"""What torch tests of its own optimizers, of both Lions: the steps.

The machinery is that of torch's wheel. The tests are our own, one for each behaviour; `make
torch-suite` runs torch's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.testing._internal.common_optimizers import OptimizerInfo, optims
from torch.testing._internal.common_utils import TestCase, gradcheck, parametrize, set_default_dtype

from support.lions import ONCE, WHOLE, give_gradients, same
from support.optimizer_info import PATHS, has_kernel, infos, on_each_device, paths

INFOS = infos()


class Line:
    """The least squares of a line: what both halves of a comparison descend."""

    def __init__(self, device: str, contiguous: bool = True) -> None:
        generator = torch.Generator().manual_seed(0)
        weight, bias, self.at = (
            torch.randn(shape, generator=generator).to(device) for shape in ((10, 5, 2), (10, 2), 5)
        )
        cut = (lambda t: t[..., 0].contiguous()) if contiguous else (lambda t: t[..., 0])
        self.params = [Parameter(cut(weight)), Parameter(cut(bias))]

    def loss(self) -> Tensor:
        """The loss; its gradients are in the parameters afterwards."""
        weight, bias = self.params
        weight.grad = bias.grad = None
        loss = (weight.mv(self.at) + bias).square().sum()
        loss.backward()
        return loss.detach()

    def descends(
        self, optimizer: torch.optim.Optimizer, schedulers: Iterable[Any] = (), steps: int = 6
    ) -> bool:
        """Whether the loss after some steps lies on the right side of the first one."""
        before = self.loss()
        for _ in range(steps):
            loss = optimizer.step(self.loss)
            for scheduler in schedulers:
                scheduler.step(*([loss] if isinstance(scheduler, ReduceLROnPlateau) else []))
        down = self.loss() < before
        return bool(down) != optimizer.param_groups[0]["maximize"]


def _twins(device: str, dtypes: list[torch.dtype]) -> list[list[Parameter]]:
    """Two equal lists of parameters: usual, 0-d, empty and transposed ones of each dtype."""
    twins = []
    for _ in range(2):
        generator = torch.Generator().manual_seed(1)
        shapes: list[tuple[int, ...]] = [(3, 5), (), (0,), (7, 2)]
        found = []
        for dtype in dtypes:
            plain = [torch.rand(shape, generator=generator).to(device, dtype) for shape in shapes]
            found += [Parameter(tensor) for tensor in (*plain, plain[0].clone().t())]
        twins.append(found)
    return twins


def _step_alike(
    optimizers: list[torch.optim.Optimizer], twins: list[list[Parameter]], steps: int = 6
) -> bool:
    """Steps on equal gradients; one without any, some with a part frozen. Whether all is equal."""
    for step in range(steps):
        for optimizer, params in zip(optimizers, twins, strict=True):
            give_gradients(params, step)
            for param in params if step == 1 else params[::2] if step in (2, 3) else []:
                param.grad = None
            optimizer.step()
        if not same(*(_everything(each) for each in optimizers)):
            return False
    return True


def _everything(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    states = [optimizer.state.get(param, {}) for param in params]
    return [*params, *(state[name] for state in states for name in sorted(state))]


def _takes(dtype: torch.dtype, options: dict[str, Any]) -> bool:
    """Whether parameters of that dtype can have these options."""
    if dtype.is_complex:
        return options.get("state_dtype") != torch.bfloat16
    return dtype != torch.float16 or options.get("rounding", "nearest") == "nearest"


class TestSteps(TestCase):
    """Where steps lead, and that all paths lead there."""

    @optims(INFOS)
    def test_every_option_is_tried(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Each option of the signature is in an input; what chooses the path is in none."""
        signature = set(inspect.signature(optim_info.optim_cls).parameters)
        tried = [set(each.kwargs) for each in optim_info.optim_inputs_func(device=device)]
        assert set().union(*tried) == signature - {"params", "use_triton", *PATHS}

    @optims(INFOS)
    def test_errors(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """What every optimizer of torch refuses is refused in torch's words, and what ours do."""
        for each in optim_info.optim_error_inputs_func(device=device, dtype=dtype):
            given = each.optimizer_error_input
            warns = issubclass(each.error_type, Warning)
            expect: Any = pytest.warns if warns else pytest.raises
            with expect(each.error_type, match=each.error_regex):
                optim_info.optim_cls(given.params, **given.kwargs)

    @parametrize("contiguous", [True, False])
    @optims(INFOS)
    def test_goes_right_direction(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo, contiguous: bool
    ) -> None:
        """The loss falls, or rises with `maximize`, whatever the layout and the path.

        Weights with gaps have no kernel, and whoever insists on one is told so.
        """
        for each in paths(device, optim_info):
            line = Line(device, contiguous)
            if each.kwargs.get("fused") and not contiguous:
                with pytest.raises(RuntimeError, match="does not have weights with gaps"):
                    optim_info.optim_cls(line.params, **each.kwargs)
                continue
            optimizer = optim_info.optim_cls(line.params, **each.kwargs)
            assert line.descends(optimizer), each.desc

    @optims(INFOS)
    def test_goes_right_direction_with_schedulers(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """The same under schedulers, for every input."""
        for constructors in optim_info.scheduler_inputs:
            for each in optim_info.optim_inputs_func(device=device):
                line = Line(device)
                optimizer = optim_info.optim_cls(line.params, **each.kwargs)
                schedulers = [constructor(optimizer) for constructor in constructors]
                assert line.descends(optimizer, schedulers), each.desc

    @optims(INFOS)
    def test_group_with_own_lr_and_scheduler_goes_right_direction(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Schedulers move the lr of each group from its own value."""
        for constructors in optim_info.scheduler_inputs:
            line = Line(device)
            weight, bias = line.params
            optimizer = optim_info.optim_cls([{"params": [weight]}, {"params": [bias], "lr": 0.01}])
            schedulers = [constructor(optimizer) for constructor in constructors]
            assert line.descends(optimizer, schedulers, steps=12)
            first, second = (group["lr"] for group in optimizer.param_groups)
            assert first < second

    @parametrize("num_dim", [0, 1, 2])
    @optims(INFOS)
    def test_tensor_lr(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo, num_dim: int
    ) -> None:
        """A tensor lr of one element, in any number of dimensions, on the CPU or the device."""
        for place in {device, "cpu"}:
            for each in paths(device, optim_info):
                lr = torch.tensor(1e-3, dtype=torch.float64).reshape([1] * num_dim).to(place)
                lines = [Line(device), Line(device)]
                optimizers = [
                    optim_info.optim_cls(line.params, **{**each.kwargs, "lr": value})
                    for line, value in zip(lines, (1e-3, lr), strict=True)
                ]
                for line, optimizer in zip(lines, optimizers, strict=True):
                    for _ in range(3):
                        optimizer.step(line.loss)
                assert same(lines[0].params, lines[1].params), each.desc

    @optims(INFOS, dtypes=[torch.complex64])
    def test_complex(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """Complex parameters, beside a real one, move as pairs of reals do."""
        for each in paths(device, optim_info, dtype=dtype):
            if not _takes(dtype, each.kwargs):
                continue
            whole = [
                torch.randn(4, 3, dtype=kind, device=device).requires_grad_()
                for kind in (dtype, dtype, torch.float32)
            ]
            parts = [_as_real(param).clone().requires_grad_() for param in whole]
            optimizers = [optim_info.optim_cls(params, **each.kwargs) for params in (whole, parts)]
            for _ in range(3):
                for left, right in zip(whole, parts, strict=True):
                    left.grad = torch.randn_like(left)
                    right.grad = _as_real(left.grad).clone()
                for optimizer in optimizers:
                    optimizer.step()
            assert same([_as_real(param) for param in whole], parts), each.desc

    @optims(INFOS, dtypes=[torch.complex64])
    def test_complex_2d(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """Real and imaginary parts as two parameters: the same, where a tensor is no unit."""
        for each in paths(device, optim_info, dtype=dtype):
            options = each.kwargs
            if set(options) & {*WHOLE, "global_clipnorm"} or not _takes(dtype, options):
                continue
            if "pow" in inspect.signature(optim_info.optim_cls).parameters:
                options["agreement"] = "group"
            whole = torch.randn(4, dtype=dtype, device=device).requires_grad_()
            parts = [part.detach().clone().requires_grad_() for part in (whole.real, whole.imag)]
            optimizers = [optim_info.optim_cls(given, **options) for given in ([whole], parts)]
            for _ in range(3):
                whole.grad = torch.randn_like(whole)
                for part, grad in zip(parts, (whole.grad.real, whole.grad.imag), strict=True):
                    part.grad = grad.clone()
                for optimizer in optimizers:
                    optimizer.step()
            assert same([whole.real, whole.imag], parts), each.desc

    @optims(INFOS, dtypes=[torch.float64, torch.float32, torch.bfloat16, torch.float16])
    def test_foreach_matches_forloop(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Bit for bit, weights and state, with parts frozen for a while and without gradients."""
        for each in optim_info.optim_inputs_func(device=device):
            if _takes(dtype, each.kwargs):
                self._assert_alike(device, [dtype], optim_info, each.kwargs)

    @optims(INFOS, dtypes=[torch.float32, torch.bfloat16, torch.float16])
    def test_fused_matches_forloop(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Bit for bit too, where there is a kernel: Lion's default is one on such a device."""
        fits = partial(has_kernel, device, optim_info, dtype=dtype)
        given = [each.kwargs for each in optim_info.optim_inputs_func(device=device)]
        fitting = [each for each in given if _takes(dtype, each) and fits(each)]
        is_there = torch.device(device).type in optim_info.supports_fused_on
        assert bool(fitting) == (is_there and (dtype != torch.float16 or device != "cpu"))
        for options in fitting:
            self._assert_alike(device, [dtype], optim_info, options, path="fused")

    @optims(INFOS)
    def test_mixed_device_dtype(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """The same with all dtypes in one group, and on a device some of them on the CPU."""
        dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]
        for each in optim_info.optim_inputs_func(device=device):
            fitting = [dtype for dtype in dtypes if _takes(dtype, each.kwargs)]
            on_cpu = device != "cpu"
            self._assert_alike(device, fitting, optim_info, each.kwargs, also_on_cpu=on_cpu)

    @parametrize("default", [torch.float64, torch.float16])
    @optims(INFOS)
    def test_set_default_dtype_works_with_foreach(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo, default: torch.dtype
    ) -> None:
        """torch's default dtype reaches neither the numbers nor the dtype of the state."""
        for each in optim_info.optim_inputs_func(device=device):
            with set_default_dtype(default):
                optimizer = self._assert_alike(device, [dtype], optim_info, each.kwargs)
            for state in optimizer.state.values():
                assert state["exp_avg"].dtype == (each.kwargs.get("state_dtype") or dtype)

    def _assert_alike(
        self,
        device: str,
        dtypes: list[torch.dtype],
        info: OptimizerInfo,
        options: dict[str, Any],
        *,
        path: str = "foreach",
        also_on_cpu: bool = False,
    ) -> torch.optim.Optimizer:
        twins = _twins(device, dtypes)
        if also_on_cpu:
            for params, others in zip(twins, _twins("cpu", dtypes), strict=True):
                params += others
        # bfloat16 weights stand still at the default lr, which brings a warning.
        optimizers = [
            info.optim_cls(params, **{"lr": 0.01, **options, **chosen})
            for params, chosen in zip(twins, ({"foreach": False}, {path: True}), strict=True)
        ]
        assert _step_alike(optimizers, twins), f"{dtypes}, {options}"
        return optimizers[1]

    @optims(INFOS)
    def test_group_options(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """All options can be those of a group; weight decay can be off in another."""
        for each in paths(device, optim_info):
            line = Line(device)
            weight, bias = line.params
            other = {**each.kwargs, "weight_decay": 0.0}
            optimizer = optim_info.optim_cls(
                [{"params": [weight], **each.kwargs}, {"params": [bias], **other}]
            )
            assert line.descends(optimizer), each.desc

    @optims(INFOS)
    def test_group_lr(self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo) -> None:
        """The lr of a group is its own: beside it a vanishing lr changes no bit."""
        for each in paths(device, optim_info):
            line, still = Line(device), Parameter(torch.randn(2, device=device))
            before = still.detach().clone()
            once = {name: each.kwargs.pop(name) for name in ONCE if name in each.kwargs}
            groups = [{"params": line.params, "lr": 1e-3, **each.kwargs}, {"params": [still]}]
            optimizer = optim_info.optim_cls(groups, lr=1e-28, **once)
            still.grad = torch.rand_like(still)
            assert line.descends(optimizer), each.desc
            assert same([still], [before]), each.desc

    @optims(INFOS)
    def test_step_is_noop_without_gradients(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Nothing moves, there is no state, and the closure's loss comes back."""
        params = [torch.randn(2, 3, device=device) for _ in range(2)]
        before = [param.clone() for param in params]
        for each in paths(device, optim_info, differentiable=True):
            optimizer = optim_info.optim_cls(params, **each.kwargs)
            assert optimizer.step(lambda: 3.5) == 3.5, each.desc
            assert same(params, before), each.desc
            assert not any(optimizer.state.values()), each.desc

    @optims(INFOS)
    def test_step_is_noop_for_zero_gradients(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Without weight decay they leave the bits as they are."""
        before = torch.randn(5, 1, device=device)
        for each in paths(device, optim_info, differentiable=True):
            if each.kwargs.get("weight_decay", 0) != 0:
                continue
            param = before.clone()
            param.grad = torch.zeros_like(param)
            optimizer = optim_info.optim_cls([param], **each.kwargs)
            for _ in range(4):
                optimizer.step()
            assert same([param], [before]), each.desc

    @optims(INFOS)
    def test_gradients_are_never_written(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Neither their bits nor their version change, on any path."""
        for each in paths(device, optim_info, differentiable=True):
            param = torch.randn(5, 1, device=device)
            param.grad = torch.randn_like(param)
            before, version = param.grad.clone(), param.grad._version
            optimizer = optim_info.optim_cls([param], **each.kwargs)
            for _ in range(4):
                optimizer.step()
            assert param.grad._version == version, each.desc
            assert same([param.grad], [before]), each.desc

    @optims(INFOS, dtypes=[torch.float64])
    def test_differentiable(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """Weight and state after a step have derivatives by weight, gradient and momentum."""
        for each in optim_info.optim_inputs_func(device=device):
            if "state_dtype" in each.kwargs:
                continue  # its rounding has no derivative that a difference could show
            tensors = [_scattered(seed, device) for seed in range(3)]
            step = partial(_stepped, optim_info.optim_cls, each.kwargs)
            assert gradcheck(step, tensors), each.desc

    @optims(INFOS, dtypes=[torch.float64])
    def test_differentiable_lr(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """The weight after a step has a derivative by a tensor lr, for which one can search."""
        lr = torch.tensor(0.1, dtype=dtype, device=device, requires_grad=True)
        tensors = [_scattered(seed, device).detach() for seed in range(3)]

        def step(lr: Tensor) -> tuple[Tensor, ...]:
            options = {"lr": lr, "weight_decay": 0.1}
            return _stepped(optim_info.optim_cls, options, *tensors)[:1]

        assert gradcheck(step, [lr])

    @parametrize("form", ["generator", "list", "groups", "named", "named groups"])
    @optims(INFOS)
    def test_forms_of_params(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo, form: str
    ) -> None:
        """Parameters come as any iterable, in groups or not, with names or not."""
        line = Line(device)
        named = list(zip(("weight", "bias"), line.params, strict=True))
        forms: dict[str, Callable[[], Any]] = {
            "generator": lambda: (param for param in line.params),
            "list": lambda: list(line.params),
            "groups": lambda: [{"params": param} for param in line.params],
            "named": lambda: iter(named),
            "named groups": lambda: [{"params": [pair]} for pair in named],
        }
        optimizer = optim_info.optim_cls(forms[form]())
        assert line.descends(optimizer)
        names = [name for group in optimizer.param_groups for name in group.get("param_names", [])]
        assert names == (["weight", "bias"] if form.startswith("named") else [])

    @optims(INFOS)
    def test_closure_and_plain_step_agree(
        self, device: str, dtype: torch.dtype, optim_info: OptimizerInfo
    ) -> None:
        """With a closure `step` returns its loss, of the closure's own type; without one, None."""
        for each in paths(device, optim_info):
            first, second = Line(device), Line(device)
            by_closure, plain = (
                optim_info.optim_cls(line.params, **each.kwargs) for line in (first, second)
            )
            assert isinstance(by_closure.step(first.loss), Tensor), each.desc
            second.loss()
            assert plain.step() is None, each.desc
            assert same(first.params, second.params), each.desc


def _as_real(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _scattered(seed: int, device: str) -> Tensor:
    """Six numbers away from 0, where signs have no derivative, and from each other's."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(6, generator=generator).to(device, torch.float64)
    return ((order - 2.6) / 3 + 0.01 * seed).requires_grad_()


def _stepped(
    kind: Any, options: dict[str, Any], param: Tensor, grad: Tensor, exp_avg: Tensor
) -> tuple[Tensor, ...]:
    """Weight and state after a differentiable step."""
    param = param.clone()
    param.grad = grad
    optimizer = kind([param], **{"lr": 0.1, **options, "differentiable": True})
    optimizer.state[param]["exp_avg"] = exp_avg.clone()
    optimizer.step()
    return (param, *(each for each in optimizer.state[param].values() if each.requires_grad))


on_each_device(TestSteps, globals())

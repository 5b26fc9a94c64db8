"""Kernels are chosen where they are exact, and what they keep between steps never goes stale."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import Parameter
from torch.testing._internal.two_tensor import TwoTensor

from liontool.optim import Lion, LionSF, backends
from liontool.optim._base import LionBase

SHAPES = [(63,), (17, 59), (3, 4, 5), (1,), (), (0,), (2, 3, 4, 5)]
pytestmark = pytest.mark.skipif(
    backends()["cpu"] != "available", reason=f"no CPU kernel: {backends()['cpu']}"
)

KINDS: dict[str, Callable[..., LionBase]] = {
    "lion": Lion,
    "lion_sf": LionSF,
    "lion_sf group_signed": lambda *given, **options: LionSF(
        *given, agreement="group_signed", pow=0.7, **options
    ),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decoupled": {"weight_decay": 0.01, "decoupled_weight_decay": True},
    "maximize": {"maximize": True, "weight_decay": 0.3},
    "masked": {"cautious_factor": 0.0},
    "cautious": {"cautious_factor": 0.5},
    "cautious decay": {"cautious_wd": True, "weight_decay": 0.3},
    "average": {"use_ema": True, "ema_overwrite_frequency": 7},
    "bfloat16 momentum": {"state_dtype": torch.bfloat16},
}


def _params(dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    params[-1] = Parameter(params[-1].detach().to(memory_format=torch.channels_last))
    params[1] = Parameter(params[1].detach().t().contiguous().t())
    return params


def _all_params(optimizer: LionBase) -> list[Tensor]:
    return [param for group in optimizer.param_groups for param in group["params"]]


def _train(optimizer: LionBase, steps: int, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        for param in _all_params(optimizer):
            if param.requires_grad:
                grad = torch.randn(param.shape, generator=generator) + 0.2
                param.grad = torch.where(grad.abs() < 0.1, 0, grad).to(param.dtype)
        optimizer.step()


def _bits(optimizer: LionBase) -> list[Tensor]:
    params = _all_params(optimizer)
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    counters = [group["step"] for group in optimizer.param_groups]
    return [*(param.detach() for param in params), *state, *counters]


def _equal(*optimizers: LionBase) -> bool:
    first, second = map(_bits, optimizers)
    assert len(first) == len(second)
    return all(map(torch.equal, first, second))


def _path(optimizer: LionBase) -> set[str]:
    return {line.split()[-1] for line in repr(optimizer).splitlines() if "path:" in line}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_default_gives_the_bits_of_the_loop(kind: str, name: str) -> None:
    """The kernel is chosen without being asked for, and 200 steps of it equal the loop's."""
    chosen = KINDS[kind](_params(), lr=1e-2, **OPTIONS[name])
    plain = KINDS[kind](_params(), lr=1e-2, foreach=False, **OPTIONS[name])
    for optimizer in (chosen, plain):
        optimizer.param_groups[0]["horizon"] = 10.0
        _train(optimizer, 200)
    assert (_path(chosen), _path(plain)) == ({"cpu"}, {"loop"})
    assert _equal(chosen, plain)


@pytest.mark.parametrize("rounding", ["nearest", "split"])
@pytest.mark.parametrize("state_dtype", [None, torch.float32], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bfloat16_gives_the_bits_of_the_loop(kind: str, rounding: str, state_dtype: Any) -> None:
    """bfloat16 weights are rounded as torch rounds them."""
    options = {"lr": 1e-2, "weight_decay": 0.1, "rounding": rounding, "state_dtype": state_dtype}
    chosen = KINDS[kind](_params(torch.bfloat16), **options)
    plain = KINDS[kind](_params(torch.bfloat16), foreach=False, **options)
    for optimizer in (chosen, plain):
        _train(optimizer, 200)
    assert _path(chosen) == {"cpu"}
    assert _equal(chosen, plain)


PLAIN: list[dict[str, Any]] = [
    {"differentiable": True},
    {"clipnorm": 1.0},
    {"clipvalue": 1.0},
    {"global_clipnorm": 1.0},
    {"loss_scale_factor": 2.0},
    {"gradient_accumulation_steps": 2},
    {"nonfinite": "skip"},
    {"nonfinite": "raise"},
    {"capturable": True},
]


@pytest.mark.parametrize("options", PLAIN, ids=str)
def test_options_without_kernel_go_without_a_word(options: dict[str, Any]) -> None:
    """They take torch's operations by themselves, and are refused with `fused=True`."""
    assert _path(Lion(_params(), **options)) <= {"loop", "foreach"}
    with pytest.raises(ValueError, match=r"Invalid fused: True with "):
        Lion(_params(), fused=True, **options)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.complex64], ids=str)
def test_dtypes_without_kernel_go_without_a_word(dtype: torch.dtype) -> None:
    """They take torch's operations by themselves, and are refused with `fused=True`."""
    optimizer = Lion(_params(dtype), lr=1e-2)
    _train(optimizer, 2)
    assert _path(optimizer) == {"foreach"}
    with pytest.raises(RuntimeError, match=r"`fused=True` requires a kernel for torch\..* on cpu"):
        Lion(_params(dtype), fused=True)


def test_fused_true_takes_the_kernel() -> None:
    """Asked for by name, by lion-pytorch's name, or left out, it is the same."""
    assert _path(Lion(_params(), fused=True)) == {"cpu"}
    assert _path(Lion(_params(), use_triton=True)) == {"cpu"}
    assert _path(Lion(_params(), fused=False)) == {"foreach"}


def _swap_weights(optimizer: LionBase) -> None:
    for param in _all_params(optimizer):
        param.data = param.data.clone() * 0.5


def _swap_state(optimizer: LionBase) -> None:
    for entry in optimizer.state.values():
        entry["exp_avg"] = entry["exp_avg"].clone() * 0.5


def _reload(optimizer: LionBase) -> None:
    saved = copy.deepcopy(optimizer.state_dict())
    for entry in saved["state"].values():
        entry["exp_avg"].mul_(0.5)
    optimizer.load_state_dict(saved)


def _clear(optimizer: LionBase) -> None:
    optimizer.state.clear()


def _freeze(optimizer: LionBase) -> None:
    param = _all_params(optimizer)[0]
    param.requires_grad_(False)
    param.grad = None


def _thaw(optimizer: LionBase) -> None:
    _all_params(optimizer)[-2].requires_grad_(True)


def _add_group(optimizer: LionBase) -> None:
    optimizer.add_param_group({"params": [Parameter(torch.ones(5))], "lr": 0.1})


def _replace_parameter(optimizer: LionBase) -> None:
    group = optimizer.param_groups[0]
    old, new = group["params"][0], Parameter(torch.ones(63))
    optimizer.state[new] = optimizer.state.pop(old)
    group["params"][0] = new


def _other_options(optimizer: LionBase) -> None:
    optimizer.param_groups[0].update(lr=0.03, maximize=True, weight_decay=0.2, betas=(0.8, 0.9))


def _other_path(optimizer: LionBase) -> None:
    optimizer.param_groups[0]["clipnorm"] = 0.5


def _other_dtype(optimizer: LionBase) -> None:
    for param in _all_params(optimizer):
        param.data = param.data.double()


def _cut(optimizer: LionBase) -> None:
    """Less of the same memory."""
    param = _all_params(optimizer)[0]
    for tensor in (param, optimizer.state[param]["exp_avg"]):
        tensor.data = tensor.data[:40]


def _transpose(optimizer: LionBase) -> None:
    """The same memory in another order, of the momentum too."""
    param = _all_params(optimizer)[1]
    for tensor in (param, optimizer.state[param]["exp_avg"]):
        tensor.data = tensor.data.t()


def _exchange_momenta(optimizer: LionBase) -> None:
    """Tensors and their entries stay, and lie elsewhere."""
    param = _all_params(optimizer)[1]
    torch.utils.swap_tensors(optimizer.state[param]["exp_avg"], torch.ones_like(param).detach())


def _forget_a_momentum(optimizer: LionBase) -> None:
    del optimizer.state[_all_params(optimizer)[2]]["exp_avg"]


def _rename_a_momentum(optimizer: LionBase) -> None:
    """The entries are in another order, and nothing else is."""
    param = _all_params(optimizer)[0]
    optimizer.state[param] = optimizer.state.pop(param)


def _replace_group(optimizer: LionBase) -> None:
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "lr": 0.5}


def _replace_groups(optimizer: LionBase) -> None:
    optimizer.param_groups = [{**group, "lr": 0.5} for group in optimizer.param_groups]


def _replace_counter(optimizer: LionBase) -> None:
    optimizer.param_groups[0] = {**optimizer.param_groups[0], "step": torch.tensor(100)}


def _move_to_another_group(optimizer: LionBase) -> None:
    """The flat list of all parameters stays as it was."""
    optimizer.add_param_group({"params": [Parameter(torch.ones(5))], "lr": 0.1})
    _train(optimizer, 2, seed=3)
    first, second = (group["params"] for group in optimizer.param_groups)
    second.insert(0, first.pop())


def _rename_all_momenta(optimizer: LionBase) -> None:
    """The entries and their order stay, for other parameters."""
    first, second = Parameter(torch.ones(9)), Parameter(torch.ones(9))
    optimizer.add_param_group({"params": [first, second]})
    _train(optimizer, 2, seed=3)
    others = {first: second, second: first}
    renamed = [(others.get(param, param), entry) for param, entry in optimizer.state.items()]
    optimizer.state.clear()
    optimizer.state.update(renamed)


CHANGES = [
    _replace_group, _replace_groups, _replace_counter, _move_to_another_group, _rename_all_momenta,
    _cut, _transpose, _exchange_momenta, _forget_a_momentum, _rename_a_momentum,
    _swap_weights, _swap_state, _reload, _clear, _freeze, _thaw, _add_group, _replace_parameter,
    _other_options, _other_path, _other_dtype,
]  # fmt: skip


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__.strip("_"))
@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
def test_what_is_kept_never_goes_stale(kind: str, change: Callable[[LionBase], None]) -> None:
    """Whatever is changed between two steps, the next ones are those of the loop."""
    pair = [
        KINDS[kind](_params(), lr=1e-2, weight_decay=0.1, **way) for way in ({}, {"foreach": False})
    ]
    for optimizer in pair:
        _all_params(optimizer)[-2].requires_grad_(False)
        _train(optimizer, 3)
        change(optimizer)
        if change is _other_dtype:
            for param in _all_params(optimizer):
                param.grad = None
        _train(optimizer, 3, seed=2)
    assert _equal(*pair)


def test_gradients_of_another_layout() -> None:
    """Transposed and expanded gradients are read where they are meant."""
    pair = [Lion(_params(), lr=1e-2, **way) for way in ({}, {"foreach": False})]
    for optimizer in pair:
        for param in _all_params(optimizer):
            param.grad = torch.ones(()).expand(param.shape)
        optimizer.step()
        for param in _all_params(optimizer):
            mixed = torch.sin(torch.arange(param.numel()).float()).view(param.shape[::-1])
            param.grad = mixed.permute(tuple(reversed(range(param.ndim))))
        optimizer.step()
    assert _equal(*pair)


@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
def test_gradients_of_another_dtype(kind: str) -> None:
    """Gradients that change their dtype, of some or all, are read as what they are."""
    pair = [
        KINDS[kind](_params(torch.bfloat16), lr=1e-2, **way) for way in ({}, {"foreach": False})
    ]
    for optimizer in pair:
        params = _all_params(optimizer)
        _train(optimizer, 2)
        for dtype, some in [(torch.float32, params[:2]), (torch.float64, params), (None, [])]:
            for param in some:
                param.grad.data = param.grad.data.to(dtype) + 0.001  # type: ignore[union-attr]
            optimizer.step()
    assert _equal(*pair)


@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
def test_momenta_that_change_places(kind: str) -> None:
    """Each parameter steps with the momentum that is in its own entry."""
    pair = [
        KINDS[kind]([Parameter(torch.ones(9)) for _ in range(2)], lr=1e-2, **way)
        for way in ({}, {"foreach": False})
    ]
    for optimizer in pair:
        _train(optimizer, 3)
        first, second = (optimizer.state[param] for param in _all_params(optimizer))
        first["exp_avg"], second["exp_avg"] = second["exp_avg"], first["exp_avg"]
        _train(optimizer, 1, seed=2)
    assert _equal(*pair)


def _lazily_negated(optimizer: LionBase) -> None:
    for param in _all_params(optimizer)[:2]:
        param.grad = torch._neg_view(torch.randn_like(param))


def _without_memory(optimizer: LionBase) -> None:
    param = _all_params(optimizer)[0]
    param.grad = torch._efficientzerotensor(param.shape)


def _of_two(optimizer: LionBase) -> None:
    param = _all_params(optimizer)[0]
    param.grad = TwoTensor(torch.ones_like(param), torch.ones_like(param)).detach()


def _negated_weights(optimizer: LionBase) -> None:
    param = _all_params(optimizer)[0]
    param.data = torch._neg_view(param.detach().clone())


def _negated_momentum(optimizer: LionBase) -> None:
    entry = optimizer.state[_all_params(optimizer)[0]]
    entry["exp_avg"] = torch._neg_view(entry["exp_avg"].clone())


# What is changed, and of how many parameters: torch writes to no list of negated tensors.
ODD = [(_lazily_negated, 7), (_without_memory, 7), (_negated_weights, 1), (_negated_momentum, 1)]


@pytest.mark.parametrize(("change", "count"), ODD)
@pytest.mark.parametrize("steps", [0, 2])
def test_tensors_whose_memory_is_not_their_values(
    steps: int, change: Callable[[LionBase], None], count: int
) -> None:
    """They are read as what they stand for, from the first step and later."""
    pair = [Lion(_params()[:count], lr=1e-2, **way) for way in ({}, {"foreach": False})]
    for optimizer in pair:
        _train(optimizer, steps)
        optimizer.init_state()
        torch.manual_seed(3)
        for _ in range(2):
            for param in _all_params(optimizer):
                param.grad = torch.randn_like(param)
            change(optimizer)
            optimizer.step()
    assert _equal(*pair)


def test_a_gradient_that_autograd_negates_lazily() -> None:
    """The imaginary part of a conjugate that was resolved: the weight goes up."""
    weight = Parameter(torch.ones(1))
    optimizer = Lion([weight], lr=0.1, weight_decay=0.0)
    torch.complex(torch.ones(1), weight).conj().resolve_conj().imag.sum().backward()
    assert weight.grad is not None
    assert weight.grad.is_neg()
    optimizer.step()
    assert weight.item() == pytest.approx(1.1)


@pytest.mark.parametrize("steps", [0, 1])
def test_fake_tensors_take_no_kernel(steps: int) -> None:
    """Weights, or gradients of weights with memory, that have none, as a tracker of memory has."""
    if not steps:
        with FakeTensorMode():
            optimizer = Lion([Parameter(torch.ones(9))])
            _train(optimizer, 2)
            assert _path(optimizer) == {"foreach"}
        return
    two = TwoTensor(torch.ones(9), torch.ones(9)).requires_grad_()
    optimizer = Lion([two], lr=0.1, weight_decay=0.0)
    two.grad = TwoTensor(torch.ones(9), torch.ones(9))
    optimizer.step()
    assert _path(optimizer) == {"foreach"}
    assert two.a.tolist() == pytest.approx([0.9] * 9)


def test_a_gradient_of_another_type() -> None:
    """It is looked at in each step, and the plan does not take it."""
    optimizer = Lion([Parameter(torch.ones(9))])
    _train(optimizer, 2)
    _of_two(optimizer)
    assert not optimizer._fused.holds()


@pytest.mark.parametrize("shape", [(3, 2), (2, 2), (6,), (1, 3)], ids=str)
@pytest.mark.parametrize("way", [{}, {"foreach": False}, {"foreach": True}], ids=str)
def test_a_gradient_of_another_shape(way: dict[str, Any], shape: tuple[int, ...]) -> None:
    """It is an error on every path, with as many elements and with fewer, and nothing changes."""
    optimizer = Lion([Parameter(torch.zeros(2, 3))], **way)
    _train(optimizer, 1)
    weight = _all_params(optimizer)[0]
    assert weight.grad is not None
    weight.grad.data = torch.ones(shape)
    before = [each.clone() for each in _bits(optimizer)]
    with pytest.raises(RuntimeError, match=r"gradient of shape \(.*\) for a parameter of shape"):
        optimizer.step()
    assert all(map(torch.equal, before, _bits(optimizer)))


def test_weights_that_share_memory() -> None:
    """One step follows the other, as in the loop; the path is named, and `fused=True` refused."""
    pair = []
    for way in ({}, {"foreach": False}):
        first = Parameter(torch.linspace(-1, 1, 300))
        pair.append(Lion([first, Parameter(first.detach()[100:])], lr=1e-2, **way))  # type: ignore[arg-type]
    for optimizer in pair:
        _train(optimizer, 3)
    assert _equal(*pair)
    assert _path(pair[0]) == {"foreach"}
    with pytest.raises(RuntimeError, match="parameters share memory"):
        Lion(_all_params(pair[0]), fused=True)


def test_weights_with_gaps() -> None:
    """The path that they take is named, and `fused=True` is refused."""
    weight = Parameter(torch.ones(4, 4)[:, ::2])
    assert _path(Lion([weight])) == {"foreach"}
    with pytest.raises(RuntimeError, match="weights with gaps in memory; leave fused out"):
        Lion([weight], fused=True)


def test_momentum_without_kernel() -> None:
    """The path is named as it is then; with `fused=True` the step raises and changes nothing."""
    optimizer = Lion([Parameter(torch.ones(4))], lr=1e-2)
    weight = _all_params(optimizer)[0]
    for fused in (None, True):
        optimizer.state.clear()
        optimizer.param_groups[0]["fused"] = fused
        _train(optimizer, 1)
        assert _path(optimizer) == {"cpu"}
        entry = optimizer.state[weight]
        entry["exp_avg"] = entry["exp_avg"].half()
        assert _path(optimizer) == {"foreach"}
    before = _bits(optimizer)[0].clone()
    with pytest.raises(RuntimeError, match=r"`fused=True` requires .*: .* torch.float16 momentum"):
        _train(optimizer, 1)
    assert torch.equal(before, weight)


def test_momentum_as_half_where_it_is() -> None:
    """The same bytes, read in another dtype."""
    pair = []
    for way in ({}, {"foreach": False}):
        weights = [Parameter(torch.linspace(-2, 2, 64).bfloat16())]
        optimizer = Lion(weights, lr=1e-2, rounding="split", **way)  # type: ignore[arg-type]
        _train(optimizer, 3)
        exp_avg = optimizer.state[weights[0]]["exp_avg"]
        exp_avg.data = exp_avg.data.view(torch.float16)
        _train(optimizer, 3, seed=2)
        pair.append(optimizer)
    assert _equal(*pair)


def test_scale_and_flag_set_by_hand() -> None:
    """The kernel does not have them: they are obeyed on the plain path, and not forgotten."""
    pair = [Lion(_params(), lr=1e-2, **way) for way in ({}, {"foreach": False})]
    for optimizer in pair:
        _train(optimizer, 2)
        optimizer.grad_scale = torch.tensor(1024.0)
        optimizer.found_inf = torch.tensor(0.0)
        _train(optimizer, 1, seed=2)
        optimizer.found_inf = torch.tensor(1.0)
        _train(optimizer, 1, seed=3)
        assert int(optimizer.param_groups[0]["step"]) == 3
    assert _equal(*pair)


def test_gradients_are_let_go() -> None:
    """A gradient that its parameter forgets after the step is freed."""
    param = Parameter(torch.ones(9))
    optimizer = Lion([param])
    for _ in range(2):
        param.grad = torch.ones(9)
        gone = weakref.ref(param.grad)
        optimizer.step()
        param.grad = None
        assert gone() is None


def test_a_sparse_gradient_in_a_later_step() -> None:
    """It is refused though earlier ones were dense, and nothing changes."""
    table = torch.nn.Embedding(4, 3, sparse=True)
    optimizer = Lion(table.parameters())
    table.weight.grad = torch.ones(4, 3)
    optimizer.step()
    before = table.weight.detach().clone()
    table.weight.grad = None
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert torch.equal(table.weight, before)


def test_autograd_hears_of_the_write() -> None:
    """A weight that was saved for a backward pass cannot be used after the step."""
    weight = Parameter(torch.ones(3))
    optimizer = Lion([weight])
    weight.grad = torch.ones(3)
    loss = (weight * weight).sum()
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_nobody_waits_for_a_kernel_that_cannot_help(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether there is one, which may mean to compile it, is asked only where it could be used."""
    asked = []
    monkeypatch.setattr("liontool.optim.kernels.cpu_library._found", lambda: asked.append(1) or "")
    for params, options in ((_params(torch.float64), {}), (_params(), {"clipnorm": 1.0})):
        optimizer = Lion(params, **options)  # type: ignore[arg-type]
        _train(optimizer, 1)
        assert _path(optimizer) == {"foreach"}
    assert asked == []

"""Memory that lies otherwise than a plain tensor's, and what autograd must know of a step."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from support.lions import parameters, same, train

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "strided": lambda t: torch.stack((t, -t), dim=-1)[..., 0],
    "flipped_order": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
    "inside_a_buffer": lambda t: torch.cat((torch.zeros(3), t.flatten()))[3:].view(t.shape),
}


def _values(seed: int) -> Tensor:
    return torch.randn(4, 3, 2, 5, generator=torch.Generator().manual_seed(seed))


def _run(
    kind: Any,
    options: dict[str, Any],
    of_param: Callable[[Tensor], Tensor] = Tensor.clone,
    of_grad: Callable[[Tensor], Tensor] = Tensor.clone,
) -> tuple[Parameter, dict[str, Tensor]]:
    """A parameter and its state after three steps, in the given layouts."""
    param = Parameter(of_param(_values(0)))
    optimizer = kind([param], **{"lr": 0.1, **copy.deepcopy(options)})
    for seed in range(1, 4):
        param.grad = of_grad(_values(seed))
        optimizer.step()
    return param, optimizer.state[param]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layout_of_parameters(case: tuple[Any, dict[str, Any]], layout: str) -> None:
    """Whatever the strides: the bits are those of a contiguous one, and the strides stay."""
    kind, options = case
    plain, state = _run(kind, options)
    other, others = _run(kind, options, of_param=LAYOUTS[layout])
    assert other.stride() == LAYOUTS[layout](_values(0)).stride()
    assert same([other, *others.values()], [plain, *state.values()])


@pytest.mark.parametrize("layout", ["strided", "flipped_order"])
def test_layout_of_gradients(case: tuple[Any, dict[str, Any]], layout: str) -> None:
    """A gradient may have strides of its own."""
    kind, options = case
    plain, state = _run(kind, options)
    other, others = _run(kind, options, of_grad=LAYOUTS[layout])
    assert same([other, *others.values()], [plain, *state.values()])


def test_expanded_gradients(case: tuple[Any, dict[str, Any]]) -> None:
    """A gradient of `sum` is one number, expanded; its elements lie on each other."""
    kind, options = case
    plain, _ = _run(kind, options, of_grad=lambda v: v[:1, :1].expand_as(v).contiguous())
    other, _ = _run(kind, options, of_grad=lambda v: v[:1, :1].expand_as(v))
    assert torch.equal(plain, other)


def test_gradient_of_sum(kind: Any) -> None:
    """As autograd gives it."""
    param = Parameter(torch.ones(3, 4))
    optimizer = kind([param], lr=0.25)
    param.sum().backward()
    assert param.grad is not None
    optimizer.step()
    assert param.tolist() == [[0.75] * 4] * 3


def test_state_has_the_strides_of_its_parameter(case: tuple[Any, dict[str, Any]]) -> None:
    """So that a kernel walks both in one order."""
    kind, options = case
    param, state = _run(kind, options, of_param=LAYOUTS["channels_last"])
    assert all(each.stride() == param.stride() for each in state.values())


def test_parameters_in_one_buffer(kind: Any) -> None:
    """Neighbours in memory do not reach into each other."""
    buffer = torch.ones(12)
    params = [Parameter(buffer[0:5]), Parameter(buffer[5:9])]
    optimizer = kind(params, lr=0.25)
    params[0].grad, params[1].grad = torch.ones(5), -torch.ones(4)
    optimizer.step()
    assert buffer.tolist() == [0.75] * 5 + [1.25] * 4 + [1.0] * 3


def test_conjugated_and_negated_gradients(kind: Any) -> None:
    """Lazy conjugation and negation are resolved."""
    start = torch.tensor([1 + 1j, 2 - 1j], dtype=torch.complex64)
    grad = torch.tensor([1 + 2j, -3 + 1j], dtype=torch.complex64)
    results = []
    for lazy in (grad.conj(), grad.conj().resolve_conj()):
        param = Parameter(start.clone())
        optimizer = kind([param], lr=0.25)
        param.grad = lazy
        optimizer.step()
        results += [param.detach(), optimizer.state[param]["exp_avg"]]
    assert same(results[:2], results[2:])
    param = Parameter(torch.ones(2))
    param.grad = grad.conj().imag  # a view with its negative bit set
    kind([param], lr=0.25).step()
    assert param.tolist() == [1.25, 1.25]


@pytest.mark.parametrize("foreach", [False, True], ids=["loop", "foreach"])
def test_saved_weights_are_known_to_be_changed(
    case: tuple[Any, dict[str, Any]], foreach: bool
) -> None:
    """A backward pass through weights of before the step is refused, not silently wrong."""
    kind, options = case
    param = Parameter(torch.ones(3))
    optimizer = kind([param], **{**options, "foreach": foreach})
    loss = param.square().sum()
    version = param._version
    train(optimizer, 2)
    assert param._version > version
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_weights_keep_their_identity(case: tuple[Any, dict[str, Any]]) -> None:
    """Weights and momenta are written where they are: views and other references see the step."""
    kind, options = case
    param = Parameter(torch.ones(4))
    view, address = param.detach()[1:3], param.data_ptr()
    optimizer = kind([param], **options)
    train(optimizer, 2)
    momentum = optimizer.state[param]["exp_avg"]
    train(optimizer, 2)
    assert optimizer.state[param]["exp_avg"] is momentum
    assert param.data_ptr() == address
    assert torch.equal(view, param[1:3])


def test_no_graph_is_kept(case: tuple[Any, dict[str, Any]]) -> None:
    """Weights stay leaves and state has no history, though gradients may have one."""
    kind, options = case
    param = Parameter(torch.ones(3))
    optimizer = kind([param], **options)
    for _ in range(2):
        (param.grad,) = torch.autograd.grad(param.pow(3).sum(), param, create_graph=True)
        optimizer.step()
    assert param.is_leaf
    assert not any(each.requires_grad for each in optimizer.state[param].values())


def test_differentiable_keeps_the_graph(kind: Any) -> None:
    """With `differentiable=True` the weight after the step knows the one before."""
    start = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = start.clone()
    optimizer = kind([weight], lr=0.5, weight_decay=0.5, differentiable=True)
    weight.grad = torch.ones(2)
    optimizer.step()
    weight.sum().backward()
    assert start.grad is not None
    assert start.grad.tolist() == [0.75, 0.75]


def test_step_in_the_backward_pass(kind: Any) -> None:
    """One optimizer a parameter, stepped by a hook as soon as its gradient is there."""
    torch.manual_seed(0)
    hooked, plain = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    plain.load_state_dict(hooked.state_dict())
    optimizers = {param: kind([param], lr=0.1) for param in hooked.parameters()}

    def step(param: Tensor) -> None:
        optimizers[param].step()  # type: ignore[index]
        optimizers[param].zero_grad()  # type: ignore[index]

    for param in hooked.parameters():
        param.register_post_accumulate_grad_hook(step)
    usual = kind(plain.parameters(), lr=0.1)
    for _ in range(3):
        hooked(torch.ones(2, 4)).square().sum().backward()
        plain(torch.ones(2, 4)).square().sum().backward()
        usual.step()
        usual.zero_grad()
    assert same(list(hooked.parameters()), parameters(usual))

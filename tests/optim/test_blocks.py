"""The CPU's step without a kernel, in blocks: what it writes, and what it must leave alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import Parameter

from liontool.optim import Lion, reference, rounding
from support.lions import give_gradients, same

SIZE = 64

# Together in a block, alone in one, in several; with no elements too.
SHAPES = {
    "side by side": [(7,), (3, 5), (), (0,), (11,)],
    "one block": [(8, 8)],
    "cut": [(5, 51)],
    "all": [(7,), (5, 51), (), (0,), (8, 8), (3, 5)],
}


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors need not be large to be cut."""
    monkeypatch.setattr("liontool.optim._update.CHUNK_OF_CPU", SIZE)


def _params(name: str, dtype: torch.dtype = torch.float32) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    shapes = SHAPES[name]
    return [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in shapes]


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str
)
def test_blocks_give_the_bits_of_the_definition(name: str, dtype: torch.dtype, kind: Any) -> None:
    """Over 200 steps; LionSF whose updates count in full is Lion."""
    params, factors = _params(name, dtype), {"lr": 1e-2, "weight_decay": 0.1, "betas": (0.9, 0.99)}
    own = {"pow": 0.0} if kind.__name__ == "LionSF" else {}
    weights = [param.detach().clone() for param in params]
    exp_avgs = [torch.zeros_like(weight) for weight in weights]
    optimizer = kind(params, foreach=True, **factors, **own)
    for seed in range(200):
        give_gradients(params, seed)
        optimizer.step()
        for i, param in enumerate(params):
            assert param.grad is not None
            weights[i], exp_avgs[i] = reference.lion_step(
                weights[i], param.grad, exp_avgs[i], **factors
            )
    assert same([param.detach() for param in params], weights)
    assert same([optimizer.state[param]["exp_avg"] for param in params], exp_avgs)


@pytest.mark.parametrize("name", SHAPES)
def test_gradients_are_only_read(name: str, kind: Any) -> None:
    """Wherever a block is read where it lies."""
    params = _params(name)
    give_gradients(params)
    grads = [param.grad.clone() for param in params if param.grad is not None]
    kind(params, lr=0.1, foreach=True).step()
    assert same([param.grad for param in params if param.grad is not None], grads)


@pytest.mark.parametrize("fast", [{"foreach": True}, {}], ids=["foreach", "default"])
@pytest.mark.parametrize("name", SHAPES)
def test_a_gradient_that_is_the_weight(name: str, fast: dict[str, bool], kind: Any) -> None:
    """It is read before its memory is written, for the momentum too."""
    results = []
    for path in (fast, {"foreach": False}):
        params = _params(name)
        optimizer = kind(params, lr=0.1, **path)
        for _ in range(3):
            for param in params:
                param.grad = param.detach()
            optimizer.step()
        results.append([*params, *(optimizer.state[param]["exp_avg"] for param in params)])
    assert same(*results)


@pytest.mark.parametrize("name", SHAPES)
def test_autograd_sees_every_write(name: str, kind: Any) -> None:
    """What was saved for a backward pass before the step is known to have changed."""
    params = _params(name)
    give_gradients(params)
    loss = sum((param**2).sum() for param in params)
    assert isinstance(loss, torch.Tensor)
    kind(params, lr=0.1, foreach=True).step()
    assert all(param._version > 0 for param in params)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", SHAPES)
def test_what_is_not_finite_stays_where_it_is(name: str, bad: float, kind: Any) -> None:
    """It reaches its own element and no other, in this step and in the next."""
    params = _params(name)
    optimizer = kind(params, lr=0.1, foreach=True, **({"pow": 0.0} if "SF" in str(kind) else {}))
    for value in (bad, 0.0):
        give_gradients(params)
        grad = params[0].grad
        assert grad is not None
        grad.view(-1)[5] = value
        optimizer.step()
        assert params[0].isnan().view(-1).nonzero().tolist() == [[5]]
        assert all(param.isfinite().all() for param in params[1:])


def test_gradients_in_any_layout(kind: Any) -> None:
    """Expanded, transposed or in slices, they are the same gradients."""
    twice = []
    for contiguous in (False, True):
        params = _params("all")
        for param in params:
            param.grad = torch.ones(()).expand(param.shape)
        params[1].grad = torch.randn(51, 5, generator=torch.Generator().manual_seed(1)).t()
        params[4].grad = torch.arange(128.0).view(8, 16)[:, ::2] - 60
        if contiguous:
            for param in params:
                assert param.grad is not None
                param.grad = param.grad.contiguous()
        optimizer = kind(params, lr=0.1, foreach=True)
        optimizer.step()
        twice.append([param.detach() for param in params])
    assert same(*twice)


def test_a_tensor_that_chance_rounds_is_whole() -> None:
    """However large, each of its elements is rounded by the noise of its own place."""
    (param,) = _params("cut", torch.bfloat16)
    give_gradients([param])
    assert param.grad is not None
    size, beta1, beta2 = 1e-2, 0.9, 0.99
    optimizer = Lion([param], lr=size, betas=(beta1, beta2), rounding="stochastic", foreach=True)
    factors = reference.coefficients(
        size, optimizer.param_groups[0]["weight_decay"], (beta1, beta2)
    )
    wide = reference.widened(param.detach()), reference.widened(param.grad)
    moved, _ = reference.updated(*wide, torch.zeros(param.shape), size, factors)
    key = rounding.key(optimizer.param_groups[0]["rounding_seed"], 1, 0)
    places = torch.arange(param.numel()).view(param.shape)
    optimizer.step()
    assert same([param.detach()], [rounding.stochastic(moved, key, places)])


def test_the_default_device_is_not_asked(kind: Any) -> None:
    """Buffers are made where the weights are."""
    params = _params("all")
    give_gradients(params)
    before = [param.detach().clone() for param in params]
    optimizer = kind(params, lr=0.1, foreach=True)
    optimizer.init_state()
    with torch.device("meta"):
        optimizer.step()
    moved = [not torch.equal(param, old) for param, old in zip(params, before, strict=True)]
    assert moved == [param.numel() > 0 for param in params]

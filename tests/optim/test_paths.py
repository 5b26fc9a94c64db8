"""Every path gives the bits of the definition, over 200 steps on odd shapes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF, backends, reference
from liontool.optim._base import LionBase

SHAPES = [(63,), (17, 59), (3, 4, 5), (1,), (), (0,), (2, 3, 4, 5)]
STEPS = 200

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decay": {"weight_decay": 0.3},
    "decoupled": {"weight_decay": 0.01, "decoupled_weight_decay": True},
    "masked": {"cautious_factor": 0.0, "weight_decay": 0.1},
    "cautious": {"cautious_factor": 0.5},
    "cautious decay": {"cautious_wd": True, "weight_decay": 0.5, "cautious_factor": 0.3},
    "maximize": {"maximize": True},
    "clipvalue": {"clipvalue": 0.3},
    "clipnorm": {"clipnorm": 0.5},
    "global_clipnorm": {"global_clipnorm": 0.5},
    "loss_scale": {"loss_scale_factor": 3.0},
    "accumulation": {"gradient_accumulation_steps": 3},
    "average": {"use_ema": True, "ema_overwrite_frequency": 7},
    "bfloat16 momentum": {"state_dtype": torch.bfloat16},
    "skip": {"nonfinite": "skip"},
}
KINDS: dict[str, tuple[type[LionBase], dict[str, Any]]] = {
    "lion": (Lion, {}),
    "lion_sf": (LionSF, {"pow": 0.7}),
    "lion_sf group": (LionSF, {"agreement": "group"}),
    "lion_sf tensor_signed": (LionSF, {"agreement": "tensor_signed"}),
    "lion_sf group_signed": (LionSF, {"agreement": "group_signed", "pow": 2.0}),
}


def _params(dtype: torch.dtype) -> list[Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [Parameter(torch.randn(shape, generator=generator).to(dtype)) for shape in SHAPES]
    params[-1] = Parameter(params[-1].detach().to(memory_format=torch.channels_last))
    params[1] = Parameter(params[1].detach().t().contiguous().t())
    return params


def _run(optimizer: LionBase, steps: int, horizon: float | None = 10.0) -> list[Tensor]:
    """Weights and all state after some steps over noise with a drift and zeros."""
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for group in optimizer.param_groups:
        group["horizon"] = horizon
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for param in params:
            grad = torch.randn(param.shape, generator=generator) + 0.2
            param.grad = torch.where(grad.abs() < 0.1, 0, grad).to(param.dtype)
        optimizer.step()
    state = [value for entry in optimizer.state.values() for value in entry.values()]
    return [*(param.detach() for param in params), *state]


def _equal(first: list[Tensor], second: list[Tensor]) -> bool:
    assert len(first) == len(second)
    return all(map(torch.equal, first, second))


def _both(kind: str, first: dict[str, Any], second: dict[str, Any], **given: Any) -> bool:
    """Whether two ways to make an optimizer end up in the same bits."""
    cls, own = KINDS[kind]
    dtype, steps = given.pop("dtype", torch.float32), given.pop("steps", STEPS)
    runs = [
        _run(cls(_params(dtype), **{"lr": 1e-2, **own, **given, **way}), steps)
        for way in (first, second)
    ]
    return _equal(*runs)


@pytest.mark.parametrize("kind", KINDS)
def test_the_loop_is_the_definition(kind: str) -> None:
    """200 steps of the loop are 200 calls of `lion_step` with the scale of the definition."""
    cls, own = KINDS[kind]
    optimizer = cls(_params(torch.float32), lr=1e-2, weight_decay=0.1, foreach=False, **own)
    ours = _run(optimizer, STEPS, horizon=None)
    params = [param.detach().clone() for param in _params(torch.float32)]
    exp_avgs = [torch.zeros_like(param) for param in params]
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        grads = []
        for param in params:
            grad = torch.randn(param.shape, generator=generator) + 0.2
            grads.append(torch.where(grad.abs() < 0.1, 0, grad))
        scales = _scales(own if cls is LionSF else None, grads, exp_avgs)
        for i, scale in enumerate(scales):
            params[i], exp_avgs[i] = reference.lion_step(
                params[i],
                grads[i],
                exp_avgs[i],
                lr=1e-2,
                weight_decay=0.1,
                betas=(0.9, 0.99),
                scale=scale,
            )
    assert _equal(ours, [*params, *exp_avgs])


def _scales(
    options: dict[str, Any] | None, grads: list[Tensor], exp_avgs: list[Tensor]
) -> list[float | Tensor]:
    """LionSF's scales, worked out from the table in its docstring."""
    if options is None:
        return [1.0] * len(grads)
    agreement = options.get("agreement", "tensor")
    signed = agreement.endswith("_signed")
    factors = reference.coefficients(1e-2, 0.1, (0.9, 0.99))
    pairs = [
        (
            (reference.mixed_sign(g, m, factors) * g > 0).sum(),
            (g != 0).sum() if signed else torch.tensor(g.numel()),
        )
        for g, m in zip(grads, exp_avgs, strict=True)
    ]
    if agreement.startswith("group"):
        pairs = [(sum(k for k, _ in pairs), sum(n for _, n in pairs))] * len(pairs)  # type: ignore[misc]
    scales: list[float | Tensor] = []
    for agreeing, counted in pairs:
        surplus = 2 * agreeing.double() / counted.double() - 1
        surplus = surplus.clamp(min=0) if signed else surplus.abs()
        scale = surplus ** options.get("pow", 1.0)
        scales.append(scale if counted > 0 else 1.0)
    return scales


@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
@pytest.mark.parametrize("name", OPTIONS)
def test_foreach_gives_the_bits_of_the_loop(kind: str, name: str) -> None:
    """All tensors at once or one after the other: the same weights and the same state."""
    assert _both(kind, {"foreach": True}, {"foreach": False}, **OPTIONS[name])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if " " in kind])
def test_foreach_gives_the_bits_of_the_loop_for_every_agreement(kind: str) -> None:
    """Over a group, and without zero gradients."""
    assert _both(kind, {"foreach": True}, {"foreach": False}, weight_decay=0.1)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.bfloat16, torch.float16, torch.complex64], ids=str
)
@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
def test_other_dtypes_give_the_same_bits_too(kind: str, dtype: torch.dtype) -> None:
    """What is computed wider than it is stored, or as pairs, is rounded alike."""
    options = {"cautious_factor": 0.5, "weight_decay": 0.1, "state_dtype": torch.float32}
    assert _both(kind, {"foreach": True}, {"foreach": False}, dtype=dtype, steps=50, **options)


@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
@pytest.mark.parametrize("name", OPTIONS)
def test_capturable_gives_the_same_bits(kind: str, name: str) -> None:
    """Counters that are never read give what counters that are read give."""
    assert _both(kind, {"capturable": True}, {}, steps=30, **OPTIONS[name])


@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
@pytest.mark.parametrize("capturable", [False, True], ids=["read", "capturable"])
def test_a_tensor_lr_gives_the_same_bits(kind: str, capturable: bool) -> None:
    """A float64 tensor of one element, whatever its shape, is the same lr as a float."""
    lr = torch.tensor([3e-3], dtype=torch.float64)
    way = {"lr": lr, "capturable": capturable, "weight_decay": 0.1}
    assert _both(kind, way, {"lr": 3e-3, "weight_decay": 0.1}, steps=50)


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
@pytest.mark.parametrize("kind", ["lion", "lion_sf"])
def test_roundings_give_the_same_bits(kind: str, rounding: str) -> None:
    """Residuals and random bits do not depend on the path, nor on who keeps count."""
    ways = ({"foreach": True}, {"foreach": False}, {"capturable": True})
    for way in ways[1:]:
        assert _both(
            kind, ways[0], way, dtype=torch.bfloat16, steps=50, rounding=rounding, weight_decay=0.1
        )


def test_chunks_do_not_change_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many tensors go through at once, and however large ones are cut."""
    for options in OPTIONS.values():
        whole = _run(LionSF(_params(torch.float32), lr=1e-2, fused=False, **options), 20)
        with monkeypatch.context() as patch:
            patch.setattr("liontool.optim._update.CHUNK_OF_CPU", 100)
            cut = _run(LionSF(_params(torch.float32), lr=1e-2, fused=False, **options), 20)
        assert _equal(whole, cut)


def test_mixed_dtypes_in_a_group_decay_once() -> None:
    """float32, bfloat16 and float64 parameters of one group each decay by the same part."""
    params = [Parameter(torch.ones(4, dtype=t)) for t in (torch.float32, torch.float64)]
    params.append(Parameter(torch.ones(4, dtype=torch.bfloat16)))
    optimizer = Lion(params, lr=0.5, weight_decay=0.5)
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert all(torch.equal(param, torch.full_like(param, 0.75)) for param in params)


def test_the_path_taken_is_shown() -> None:
    """`repr` names each group's path, and `backends` all that there are."""
    params = _params(torch.float32)
    optimizer = Lion([{"params": params[:1], "foreach": False}, {"params": params[1:]}])
    shown = [line.split()[-1] for line in repr(optimizer).splitlines() if "path:" in line]
    assert shown == ["loop", "foreach"]
    assert {backends()[path] for path in shown} == {"available"}

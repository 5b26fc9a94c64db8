"""Steps of the Triton kernels beside those of the loop, on CUDA or under Triton's interpreter."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from liontool.optim import Lion, LionSF
from liontool.optim.kernels.triton_layout import Entry, Hypers, interpreted, missing

DEVICE = "cpu" if interpreted() else "cuda"

# Chunk and block of the tests: small, since the interpreter takes its time for each turn of a loop.
CHUNK, BLOCK = 256, 128
EDGES = (0, 1, 15, 16, 17, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK)

marks = [
    pytest.mark.gpu,
    pytest.mark.skipif(missing() is not None, reason=f"no Triton kernels: {missing()}"),
    # NumPy, with which the interpreter computes, warns of inf - inf and the like.
    pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by zero):RuntimeWarning"),
    # The loop warns of steps that bfloat16 has no bits for; the kernels lose the same.
    pytest.mark.filterwarnings("ignore:.*updates of half-precision weights were rounded away"),
]
on_device = pytest.mark.skipif(interpreted(), reason="needs a CUDA device")

HYPERS = {"lr": 1e-3, "weight_decay": 0.1, "betas": (0.9, 0.99)}


class Case(NamedTuple):
    """One parameter of a step, and the memory around it."""

    param: Tensor
    grad: Tensor
    exp_avg: Tensor
    margins: list[Tensor]


def drawn(
    numel: int,
    dtypes: tuple[torch.dtype, torch.dtype, torch.dtype] = (torch.float32,) * 3,
    shift: int = 0,
) -> Case:
    """A parameter of random numbers; its tensors begin `shift` elements after an aligned place."""
    scales = (0.05, 1e-3, 1e-3)
    placed = [
        placed_in_nan((torch.randn(numel) * scale).to(dtype), shift)
        for scale, dtype in zip(scales, dtypes, strict=True)
    ]
    param, grad, exp_avg = (tensor for tensor, _ in placed)
    return Case(param, grad, exp_avg, [margin for _, around in placed for margin in around])


def placed_in_nan(values: Tensor, shift: int) -> tuple[Tensor, list[Tensor]]:
    """The values on the device, and the NaN before and after them, which nobody may write."""
    numel, margin = values.numel(), 64
    memory = torch.full((numel + 2 * margin + shift,), torch.nan, dtype=values.dtype, device=DEVICE)
    start = margin + shift
    memory[start : start + numel] = values.to(DEVICE)
    return memory[start : start + numel], [memory[:start], memory[start + numel :]]


def entry(case: Case, group: int = 0, **more: Any) -> Entry:
    """What a plan is told of a case."""
    return Entry(case.param, case.exp_avg, more.pop("residual", None), group, **more)


def hypers(**options: Any) -> Hypers:
    """What a plan is told of a group."""
    return Hypers(**{**HYPERS, **options})


def by_the_loop(
    cases: list[Case],
    *,
    scaled: dict[str, Tensor] | None = None,
    groups: list[int] | None = None,
    group_options: list[dict[str, Any]] | None = None,
    **options: Any,
) -> list[dict[str, Tensor]]:
    """A step of the optimizer by the loop on copies: weights and state of each case.

    Args:
        cases: Parameters; they stay as they are.
        scaled: What GradScaler sets.
        groups: Group of each case.
        group_options: Options of each group.
        options: Of the optimizer; `agreement` makes it LionSF.
    """
    params = [torch.nn.Parameter(case.param.cpu().clone()) for case in cases]
    members = groups or [0] * len(cases)
    each = group_options or [{}]
    param_groups = [
        {"params": [p for p, member in zip(params, members, strict=True) if member == place], **own}
        for place, own in enumerate(each)
    ]
    kind = LionSF if "agreement" in options else Lion
    seed, horizon, step = (options.pop(name, None) for name in ("seed", "horizon", "step"))
    optimizer = kind(param_groups, **{**HYPERS, "foreach": False, "fused": False, **options})
    optimizer.init_state()
    for param, case in zip(params, cases, strict=True):
        optimizer.state[param]["exp_avg"] = case.exp_avg.cpu().clone()
        param.grad = case.grad.cpu().to(param.dtype)
    for group in optimizer.param_groups:
        group["rounding_seed"] = seed or 0
        group["horizon"] = horizon
        group["step"].fill_(step or 0)
    for name, value in (scaled or {}).items():
        setattr(optimizer, name, value.cpu())
    optimizer.step()
    return [{"param": param.detach(), **optimizer.state[param]} for param in params]


def assert_same(found: Tensor, expected: Tensor, what: str) -> None:
    """Both have the same bits, but for the bits of NaN and the sign of nothing."""
    found = found.cpu()
    same = (found == expected) | (found.isnan() & expected.isnan())
    assert found.dtype == expected.dtype
    assert bool(same.all()), f"{what}: {int((~same).sum())} of {same.numel()} differ"


def assert_equal(cases: list[Case], expected: list[dict[str, Tensor]]) -> None:
    """Weights and momenta are what they should be, and nothing beside them was touched."""
    for place, (case, want) in enumerate(zip(cases, expected, strict=True)):
        label = f"tensor {place} of {case.param.numel()} elements"
        assert_same(case.param, want["param"], f"weights of {label}")
        assert_same(case.exp_avg, want["exp_avg"], f"momentum of {label}")
        assert all(bool(margin.isnan().all()) for margin in case.margins), f"beside {label}"


@pytest.fixture
def poisoned():
    """Scratch memory begins as NaN, and as the largest integer."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(before)

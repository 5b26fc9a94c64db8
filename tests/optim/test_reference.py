"""The definition itself, against float64 and against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from liontool.optim import reference

BETAS = (0.9, 0.99)


def test_order_is_decay_update_momentum() -> None:
    """One step on numbers that can be followed by hand."""
    param, exp_avg = torch.tensor([1.0, -2.0, 4.0]), torch.tensor([0.5, 0.0, -1.0])
    grad = torch.tensor([-0.1, -3.0, 0.0])
    new_param, new_exp_avg = reference.lion_step(
        param, grad, exp_avg, lr=0.5, weight_decay=0.5, betas=(0.5, 0.75)
    )
    # mix = .2, -1.5, -.5; decay = .75
    assert new_param.tolist() == [0.75 - 0.5, -1.5 + 0.5, 3.0 + 0.5]
    assert new_exp_avg.tolist() == pytest.approx([0.35, -0.75, -0.75])


def test_nothing_is_changed_in_place() -> None:
    """The inputs are the same after a step."""
    given = [torch.randn(5) for _ in range(3)]
    before = [tensor.clone() for tensor in given]
    reference.lion_step(*given, lr=0.1, weight_decay=0.1, betas=BETAS)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_small_dtypes_compute_in_float32(dtype: torch.dtype) -> None:
    """A half-precision step is the float32 step, rounded once at the end."""
    torch.manual_seed(0)
    given = [torch.randn(1003).to(dtype) for _ in range(3)]
    step = {"lr": 3e-3, "weight_decay": 0.1, "betas": BETAS}
    new = reference.lion_step(*given, **step)
    wide = reference.lion_step(*(tensor.float() for tensor in given), **step)
    for narrow, exact in zip(new, wide, strict=True):
        assert narrow.dtype == dtype
        assert torch.equal(narrow, exact.to(dtype))


def test_float64_computes_in_float64() -> None:
    """float64 agrees with Python's own arithmetic to the last bit."""
    p, g, m = 0.1, 0.3, -0.7
    new_param, new_exp_avg = reference.lion_step(
        *(torch.tensor(x, dtype=torch.float64) for x in (p, g, m)),
        lr=1e-3,
        weight_decay=0.1,
        betas=BETAS,
    )
    assert new_param.item() == p * (1 - 1e-3 * 0.1) + 1e-3
    assert new_exp_avg.item() == 0.99 * m + (1 - 0.99) * g


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
def test_complex_is_pairs_of_reals(dtype: torch.dtype) -> None:
    """A complex step is the real step on both parts, lazily conjugated gradients included."""
    torch.manual_seed(0)
    param, grad, exp_avg = (torch.randn(4, 3, dtype=dtype) for _ in range(3))
    step = {"lr": 0.1, "weight_decay": 0.1, "betas": BETAS}
    new = reference.lion_step(param, grad.conj().resolve_conj().conj(), exp_avg, **step)
    pairs = reference.lion_step(*map(torch.view_as_real, (param, grad, exp_avg)), **step)
    for whole, parts in zip(new, pairs, strict=True):
        assert whole.dtype == dtype
        assert torch.equal(torch.view_as_real(whole), parts)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_bad_gradient_reaches_the_weight(bad: float) -> None:
    """What is not finite makes its weight NaN, and no other weight."""
    param, _ = reference.lion_step(
        torch.ones(3), torch.tensor([1.0, bad, 1.0]), torch.zeros(3), lr=0.1, weight_decay=0.0,
        betas=BETAS,
    )  # fmt: skip
    assert param.isnan().tolist() == [False, True, False]


def test_horizon_runs_from_a_plain_average_to_beta2() -> None:
    """From horizon 10, beta2 starts at 10/11 and is .99 exactly from step 90."""
    betas = [reference.momentum_beta(0.99, 10.0, step) for step in range(1, 200)]
    assert betas[0] == pytest.approx(0.909091, abs=1e-6)
    assert betas[88] < 0.99
    assert all(beta == 0.99 for beta in betas[89:])
    assert betas == sorted(betas)


def test_no_horizon_is_plain_lion() -> None:
    """Without a horizon beta2 is itself from the first step."""
    assert reference.momentum_beta(0.99, None, 1) == 0.99


def test_horizon_averages_gradients_evenly() -> None:
    """A horizon of 10 over one seed and 20 gradients is a mean in which the seed counts 10."""
    torch.manual_seed(0)
    seed, grads = torch.randn(8, dtype=torch.float64), torch.randn(20, 8, dtype=torch.float64)
    exp_avg = seed
    for step, grad in enumerate(grads, start=1):
        betas = (0.9, reference.momentum_beta(0.99, 10.0, step))
        _, exp_avg = reference.lion_step(seed, grad, exp_avg, lr=0.0, weight_decay=0.0, betas=betas)
    torch.testing.assert_close(exp_avg, (10 * seed + grads.sum(0)) / 30)


@pytest.mark.parametrize(
    ("agreeing", "counted", "pow", "signed", "expected"),
    [
        (5, 10, 1.0, False, 0.0),
        (10, 10, 1.0, False, 1.0),
        (0, 10, 1.0, False, 1.0),
        (8, 10, 2.0, False, 0.36),
        (0, 10, 1.0, True, 0.0),
        (8, 10, 1.0, True, 0.6),
        (0, 0, 1.0, True, 1.0),
        (0, 0, 1.0, False, 1.0),
        (5, 10, 0.0, False, 1.0),
    ],
)
def test_agreement_scale(
    agreeing: int, counted: int, pow: float, signed: bool, expected: float
) -> None:
    """0 at chance, 1 at full agreement; disagreement counts only in the published form."""
    scale = reference.agreement_scale(
        torch.tensor(agreeing), torch.tensor(counted), pow=pow, signed=signed
    )
    assert scale.dtype == torch.float64
    assert float(scale) == pytest.approx(expected)


def test_zero_gradients_do_not_agree() -> None:
    """Only elements whose update and gradient have the same sign count."""
    update, grad = torch.tensor([1.0, -1.0, 1.0, 0.0]), torch.tensor([2.0, 3.0, 0.0, 1.0])
    assert int(reference.agreement_counts(update, grad)) == 1


@pytest.mark.parametrize(
    ("agreeing", "factor", "expected"),
    [
        (5, 0.0, (2.0, 0.0)),
        (4, 0.5, (1 / 0.7, 0.5 / 0.7)),
        (0, 0.0, (1e5, 0.0)),
        (10, 0.3, (1, 0.3)),
    ],
)
def test_caution_keeps_the_mean_step(
    agreeing: int, factor: float, expected: tuple[float, float]
) -> None:
    """The masked updates are scaled up until their mean is 1, at most 1e5 times."""
    factors = reference.cautious_factors(torch.tensor(agreeing), 10, factor)
    assert tuple(map(float, factors)) == pytest.approx(expected)


@pytest.mark.parametrize("factor", [0.0, 0.5])
def test_cautious_step_by_hand(factor: float) -> None:
    """Where update and gradient part, the step is the factor, over the mean of all factors."""
    param, grad = torch.zeros(4), torch.tensor([1.0, 1.0, 1.0, -0.1])
    exp_avg = torch.tensor([1.0, 1.0, 1.0, 1.0])
    new, _ = reference.lion_step(
        param, grad, exp_avg, lr=0.1, weight_decay=0.0, betas=BETAS, cautious_factor=factor
    )
    mean = (3 + factor) / 4
    assert new.tolist() == pytest.approx([-0.1 / mean] * 3 + [-0.1 * factor / mean])


def test_caution_takes_a_gradient_of_zero_for_disagreement() -> None:
    """It counts as what points against its gradient, and is held back as that is."""
    grad, exp_avg = torch.tensor([1.0, 1.0, 0.0, -0.1]), torch.ones(4)
    new, _ = reference.lion_step(
        torch.zeros(4), grad, exp_avg, lr=0.75, weight_decay=0.0, betas=BETAS, cautious_factor=0.5
    )
    assert new.tolist() == [-1.0, -1.0, -0.5, -0.5]  # the mean of 1, 1, .5 and .5 is .75


def test_tensor_scalars_give_the_same_bits() -> None:
    """An lr and a beta that are float64 tensors are rounded where floats are."""
    torch.manual_seed(0)
    given = [torch.randn(1003) for _ in range(3)]
    step = torch.tensor(3)
    runs = [
        reference.lion_step(
            *given,
            lr=lr,
            weight_decay=0.1,
            betas=(0.9, reference.momentum_beta(0.99, 10.0, count)),
        )
        for lr, count in ((1e-3, 3), (torch.tensor(1e-3, dtype=torch.float64), step))
    ]
    assert all(map(torch.equal, *runs))

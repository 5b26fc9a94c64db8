"""The closed forms: against values worked out beforehand, and against simulated gradients."""

from __future__ import annotations

import functools
from math import sqrt

import numpy as np
import pytest

from liontool.convert.seeding import horizon
from liontool.measure import formulas
from liontool.measure.seed_scale import kappa

BETAS = (0.9, 0.99)
S = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.6)


def close(value):
    return pytest.approx(value, abs=1e-4)


@pytest.mark.parametrize(
    ("betas", "variance", "ratio"),
    [
        ((0.9, 0.99), 0.0140704, 6.7265),
        ((0.95, 0.98), 0.0116162, 7.4030),
        ((0.9, 0.95), 0.0307692, 4.5486),
        ((0.95, 0.99), None, 9.5127),
        ((0.9, 0.999), None, 7.8219),
        ((0.0, 0.0), 1.0, 0.7979),
    ],
)
def test_pure_noise(betas, variance, ratio):
    """Variance of the mix, and k0."""
    assert formulas.noise_ratio(betas) == close(ratio)
    assert formulas.drift_ratio(0, betas) == close(ratio)
    assert formulas.spread_ratio(0, betas) == close(ratio)
    if variance is not None:
        assert formulas.mix_variance(betas) == pytest.approx(variance, abs=1e-7)


def test_ratio_by_persistence():
    """k* and k_G fall as the gradient persists."""
    drift = [6.5402, 6.0316, 5.3274, 4.5736, 3.3066, 2.4994, 1.6667]
    spread = [6.2049, 5.1579, 4.1905, 3.4493, 2.4885, 1.9249, 1.3135]
    assert [formulas.drift_ratio(s, BETAS) for s in S] == close(drift)
    assert [formulas.spread_ratio(s, BETAS) for s in S] == close(spread)
    assert formulas.drift_ratio(1, BETAS) == 1


def test_update_variance():
    """The mean square of AdamW's update, early and late."""
    found = [formulas.update_variance(0.9, t) for t in (1, 5, 10, 20, 50)]
    assert found == pytest.approx([1.0, 0.20442, 0.10898, 0.06720, 0.05318], abs=1e-5)
    assert formulas.update_variance(0.9) == close(0.052632)
    assert formulas.update_variance(0.9, 0) == 1


def test_persistence():
    """s inverts the mean square that it makes, and is cut off at 0 and 1."""
    noise = formulas.update_variance(0.9)
    assert formulas.persistence(noise + 0.3**2 * (1 - noise), 0.9) == close(0.3)
    assert formulas.persistence(0.9 * noise, 0.9) == 0
    assert formulas.persistence(2.0, 0.9) == 1
    assert formulas.persistence(1.0, 0.9, 1) == 0


def test_schedule_free_factor():
    """What LionSF multiplies its step by depends on the betas and falls with s."""
    cases = [(0.9, 0.99), (0.95, 0.98), (0.9, 0.95)]
    found = [formulas.agreement_factor(0, betas) for betas in cases]
    assert found == close([0.6385, 0.3071, 0.3862])
    found = [formulas.agreement_factor(s, BETAS) for s in (0.05, 0.1, 0.2, 0.3)]
    assert found == pytest.approx([0.585, 0.498, 0.400, 0.382], abs=5e-4)


def test_correlations_and_diffusion():
    """Lion's mix, and the variance that its updates add up to."""
    assert formulas.mix_correlation(BETAS) == pytest.approx(0.35036, abs=1e-5)
    assert formulas.lion_diffusion(BETAS) == pytest.approx(45.927, abs=1e-3)
    assert formulas.adamw_diffusion(0.9) == pytest.approx(1)


def test_weight_growth():
    """How far decayed weights grow: less under a quick decay."""
    decays = (1 / 300, 1 / 1000, 1 / 3000, 0)
    at_three = [formulas.weight_growth(3, BETAS, 0.9, decay) for decay in decays]
    assert at_three == pytest.approx([1.995, 2.167, 2.227, 2.258], abs=1e-3)
    at_k0 = [formulas.weight_growth(formulas.noise_ratio(BETAS), BETAS, 0.9, d) for d in decays]
    assert at_k0 == pytest.approx([0.890, 0.966, 0.993, 1.0075], abs=1e-3)
    # A third of the decay: simulated with lr * wd = 0.003 to 3.78.
    assert formulas.weight_growth(3, BETAS, 0.9, 3e-3, 1 / 3) == pytest.approx(3.788, abs=1e-3)
    assert formulas.weight_growth(3, BETAS, 0.9, 0, 1 / 3) == pytest.approx(
        2.258 * sqrt(3), abs=2e-3
    )


def test_kappa():
    """What the copied momentum is multiplied by for other Lions."""
    assert kappa(0.9, 0.99) == close(0.3090)


def test_horizon():
    """Adam's effective length, but never less than Lion's own mix takes."""
    assert horizon(0.9, 1000, 0.9) == pytest.approx(10)
    assert horizon(0.95, 1000, 0.9) == pytest.approx(20)
    assert horizon(0.95, 5, 0.9) == pytest.approx(10)
    assert horizon(0.9, 1000, 0.95) == pytest.approx(20)
    assert horizon(0.95, None, 0.9) == pytest.approx(20)


def test_horizon_reaches_beta2():
    """With the horizon of an ordinary run beta2 starts at 10/11 and is 0.99 from step 90."""
    start = horizon(0.9, 1000, 0.9)
    beta2 = [min(0.99, 1 - 1 / (start + step)) for step in range(1, 200)]
    assert beta2[0] == pytest.approx(0.909091, abs=1e-6)
    assert beta2[88] < 0.99
    assert set(beta2[89:]) == {0.99}


# --- simulated gradients ------------------------------------------------------------------------


@functools.cache
def warm(coordinates, seed=0):
    """Adam's and Lion's averages in their steady state, on pure noise."""
    rng = np.random.default_rng(seed)
    adam = rng.standard_normal(coordinates) * sqrt(formulas.update_variance(0.9))
    lion = rng.standard_normal(coordinates) * sqrt((1 - 0.99) / (1 + 0.99))
    return adam.astype(np.float32), lion.astype(np.float32)


def displacement(momentum, start=None, steps=100):
    """How far Lion is after some steps on pure noise, in units of its lr."""
    rng = np.random.default_rng(1)
    momentum, moved = momentum.copy(), np.zeros_like(momentum)
    for step in range(1, steps + 1):
        grad = rng.standard_normal(len(momentum), dtype=np.float32)
        moved += np.sign(0.9 * momentum + 0.1 * grad)
        beta2 = 0.99 if start is None else min(0.99, 1 - 1 / (start + step))
        momentum = beta2 * momentum + (1 - beta2) * grad
    return float(np.sqrt(np.mean(moved**2)))


@pytest.mark.parametrize(
    ("seed", "expected", "tolerance"),
    [
        ("steady", 41.9, 0.02),
        ("zeros", 33.2, 0.03),
        ("copy", 66.0, 0.02),
        ("scaled", 41.7, 0.02),
        ("horizon", 55.0, 0.03),
    ],
)
def test_seeds_on_noise(seed, expected, tolerance):
    """Copied, the momentum runs too far; scaled, it walks like a steady one."""
    adam, lion = warm(20_000)
    start = horizon(0.9, 1000, 0.9) if seed == "horizon" else None
    momentum = {
        "steady": lion, "zeros": 0 * adam, "scaled": adam * np.float32(kappa(0.9, 0.99)),
    }.get(seed, adam)  # fmt: skip
    assert displacement(momentum, start) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("s", "expected"), [(0.1, 6.03), (0.3, 3.31), (0.6, 1.67)])
def test_drift_by_simulation(s, expected):
    """In units of its lr, AdamW drifts by s a step and Lion by k* s."""
    rng = np.random.default_rng(2)
    count, steps, noise = 4000, 2400, sqrt(1 - s * s)
    momentum = s + noise * sqrt(0.01 / 1.99) * rng.standard_normal(count).astype(np.float32)
    total = 0.0
    for _ in range(steps):
        grad = s + noise * rng.standard_normal(count, dtype=np.float32)
        total += float(np.sign(0.9 * momentum + 0.1 * grad).mean())
        momentum = 0.99 * momentum + 0.01 * grad
    assert total / steps / s == pytest.approx(expected, rel=0.01)
    assert total / steps / s == pytest.approx(formulas.drift_ratio(s, BETAS), rel=0.01)


def test_equilibrium_by_simulation():
    """Decayed weights end up larger by what the formula says."""
    rng = np.random.default_rng(3)
    count, decay, ratio = 4000, 1 / 300, 3
    adam, lion = (average.copy() for average in warm(count, 4))
    slow, fast = np.zeros(count, np.float32), np.zeros(count, np.float32)
    squares = np.zeros(2)
    for step in range(3000):
        grad = rng.standard_normal(count, dtype=np.float32)
        adam = 0.9 * adam + 0.1 * grad
        slow = (1 - decay) * slow - adam
        fast = (1 - decay) * fast - np.sign(0.9 * lion + 0.1 * grad) / ratio
        lion = 0.99 * lion + 0.01 * grad
        if step >= 1000:
            squares += np.mean(slow**2), np.mean(fast**2)
    found = sqrt(squares[1] / squares[0])
    assert found == pytest.approx(1.995, rel=0.02)
    assert found == pytest.approx(formulas.weight_growth(ratio, BETAS, 0.9, decay), rel=0.02)


def test_agreement_by_simulation():
    """At pure noise LionSF's sign agrees with the gradient as often as the formula says."""
    rng = np.random.default_rng(5)
    _, lion = warm(200_000, 6)
    grad = rng.standard_normal(len(lion), dtype=np.float32)
    agree = np.mean(np.sign(0.9 * lion + 0.1 * grad) * grad > 0)
    assert 2 * agree - 1 == pytest.approx(formulas.agreement_factor(0, BETAS), rel=0.02)

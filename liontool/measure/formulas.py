"""How far Lion and AdamW move, in closed form.

A gradient is taken as mean plus noise, element by element; `s` is the mean against the root mean
square of the whole. Estimated from a checkpoint it is the persistence of the gradient over the last
1 / (1 - beta1) steps, not a signal-to-noise ratio: a moving run oscillates in curved directions.

Names: Lion's update is sign(c) with c = beta1 * m + (1 - beta1) * g; AdamW's is u = m / sqrt(v).
"""

from __future__ import annotations

from math import asin, erf, pi, sqrt

Betas = tuple[float, float]


def mix_variance(betas: Betas) -> float:
    """Variance of Lion's mix c where the gradient is pure noise of variance 1."""
    beta1, beta2 = betas
    return (1 - beta1) ** 2 + beta1**2 * (1 - beta2) / (1 + beta2)


def noise_ratio(betas: Betas) -> float:
    """k0: the lr ratio at which both drift and diffuse alike where the gradient is pure noise."""
    return sqrt(2 / (pi * mix_variance(betas)))


def drift_ratio(s: float, betas: Betas) -> float:
    """k*: the lr ratio at which both drift alike, at persistence `s` in every element."""
    if s <= 0:
        return noise_ratio(betas)
    if s >= 1:
        return 1.0
    return erf(s / sqrt(2 * mix_variance(betas) * (1 - s * s))) / s


def spread_ratio(s: float, betas: Betas) -> float:
    """k_G: the same where means are spread normally over elements, `s` in root mean square."""
    variance = mix_variance(betas)
    return sqrt(2 / (pi * (variance + (1 - variance) * s * s)))


def update_variance(beta1: float, step: float | None = None) -> float:
    """a_t: mean square of AdamW's update at pure noise, after `step` steps (None: many)."""
    steady = (1 - beta1) / (1 + beta1)
    if step is None:
        return steady
    power = beta1**step
    return steady * (1 + power) / (1 - power) if power < 1 else 1.0


def persistence(mean_square: float, beta1: float, step: float | None = None) -> float:
    """s, from the mean square of AdamW's update."""
    noise = update_variance(beta1, step)
    if noise >= 1:
        return 0.0
    return sqrt(min(1.0, max(0.0, (mean_square - noise) / (1 - noise))))


def agreement_factor(s: float, betas: Betas) -> float:
    """What LionSF multiplies its step by, where means are spread normally over the elements."""
    variance, beta1 = mix_variance(betas), betas[0]
    shared = (1 - beta1) * (1 - s * s) + s * s
    return 2 / pi * asin(min(1.0, shared / sqrt(variance * (1 - s * s) + s * s)))


def mix_correlation(betas: Betas) -> float:
    """Correlation of Lion's mix c with the one before; each further step back takes a beta2."""
    beta1, beta2 = betas
    fresh = beta1 * (1 - beta1) * (1 - beta2)
    kept = beta1**2 * (1 - beta2) * beta2 / (1 + beta2)
    return (fresh + kept) / mix_variance(betas)


def lion_diffusion(betas: Betas, decay: float = 0.0) -> float:
    """D_L: variance that Lion's updates add up to per step at pure noise; `decay` is lr * wd."""
    correlation, beta2 = mix_correlation(betas), betas[1]
    kept, total = 1 - decay, 1.0
    weight = kept
    while abs(correlation * weight) > 1e-14:
        total += 2 * (2 / pi) * asin(correlation) * weight
        correlation, weight = correlation * beta2, weight * kept
    return total


def adamw_diffusion(beta1: float, decay: float = 0.0) -> float:
    """D_A: the same of AdamW's updates."""
    memory = beta1 * (1 - decay)
    return update_variance(beta1) * (1 + 2 * memory / (1 - memory))


def weight_growth(
    ratio: float, betas: Betas, adam_beta1: float, decay: float = 0.0, share: float = 1.0
) -> float:
    """What decayed weights tend to, against AdamW, where Lion's lr is `ratio` times smaller.

    Args:
        ratio: AdamW's lr against Lion's.
        betas: Lion's.
        adam_beta1: AdamW's.
        decay: lr * wd of AdamW.
        share: lr * wd of Lion against AdamW's: 1 where wd is multiplied by the ratio.
    """
    lion, adamw = lion_diffusion(betas, decay * share), adamw_diffusion(adam_beta1, decay)
    return sqrt(lion / adamw / share) / ratio

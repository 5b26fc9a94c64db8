"""`--lr-ratio auto`: one ratio for an optimizer, from its own moments, with the evidence.

One pass over the moments gives AdamW's update u = m_hat / (sqrt(v_hat) + eps), element by element.
Its root mean square tells the persistence s of the gradient, s the ratio k*(s) at which Lion moves
the weights as far as AdamW did. Tensors count by their elements; those whose rows are mostly still
(embeddings) are left out, since Lion moves all their rows in every step.

On real runs the ratio that kept the behaviour lay within 30 % of this one, and half of it often
ended lower: it is where to begin, not an optimum.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Optimizer
from liontool.convert.ratio_notices import ratio_notices
from liontool.convert.report import Notice
from liontool.errors import RefusedError
from liontool.measure import formulas
from liontool.measure.adam_moments import adam_betas, slot_step
from liontool.measure.evidence import (
    LEAST_STEPS,
    Progress,
    TensorEvidence,
    evidence,
    mean,
    persistence,
    update_rms,
)

MOST_UPDATE = 0.35
"""Update RMS above which the moments say nothing about the rest of the run."""

LOW, HIGH = 0.7, 1.3
_CLIP = 0.6


@dataclass(frozen=True)
class _Lion:
    """What the weights will be under.

    Attributes:
        ratio: What AdamW's lr is divided by.
        betas: Its own.
        factor: Size of its updates: less than 1 for LionSF.
        share: Its lr * weight_decay against AdamW's. Decoupled, its decay per step is AdamW's too.
    """

    ratio: float
    betas: tuple[float, float]
    factor: float
    share: float

    def growth(self, adam_beta1: float, rate: float) -> float:
        """What decayed weights tend to, where AdamW's lr * weight_decay is `rate`."""
        rate = min(rate, 1.0)
        grown = formulas.weight_growth(self.ratio, self.betas, adam_beta1, rate, self.share)
        return grown * self.factor

    def edge(self, decay: float) -> float:
        """The size of a weight at which AdamW's `decay`, as Lion has it, outweighs an update."""
        return self.factor / (decay * self.ratio * self.share)


@dataclass(frozen=True)
class GroupEvidence:
    """What the moments of one group say; averages are over the tensors that count.

    Attributes:
        index: Position of the group.
        elements: Elements in all its tensors. Without any that count, averages are None.
        update_rms: Root mean square of AdamW's update.
        persistence: s, in the root mean square.
        step_ratio: k_step, the ratio that would match the size of a single step.
        ratio: k*.
        spread_ratio: k_G, k* for persistence spread normally over the elements.
        stale: Share of elements whose update is below 1e-4, in all its tensors.
        zero: Share of elements that never had a gradient, in all its tensors.
        kurtosis: The largest of a tensor.
        weight_growth: What decayed weights tend to, against AdamW; None without weight decay.
        settling_steps: 1 / (2 * lr * weight_decay) of the Lion, the steps that this takes; None
            likewise.
        outside_box: Share of weights beyond 1 / weight_decay of the Lion, where it pulls them in;
            None where weights are not known or do not decay.
    """

    index: int
    elements: int
    update_rms: float | None
    persistence: float | None
    step_ratio: float | None
    ratio: float | None
    spread_ratio: float | None
    stale: float | None
    zero: float | None
    kurtosis: float | None
    weight_growth: float | None
    settling_steps: float | None
    outside_box: float | None


@dataclass(frozen=True)
class RatioEstimate:
    """A ratio with its evidence.

    Attributes:
        ratio: What to divide learning rates by, to two decimals: `--lr-ratio` of it does the same.
        low: Lower end of where it likely lies.
        high: Upper end.
        noise_ratio: The ratio at pure noise: k0 of these betas, less for LionSF.
        betas: Lion's betas.
        update_rms: Root mean square of AdamW's update over the tensors that count.
        steps: Steps of the run.
        groups: The evidence by group.
        sparse: The tensors that were left out because Lion would move their still rows.
        warnings: What to look at.
    """

    ratio: float
    low: float
    high: float
    noise_ratio: float
    betas: tuple[float, float]
    update_rms: float
    steps: float
    groups: tuple[GroupEvidence, ...]
    sparse: tuple[TensorEvidence, ...]
    warnings: tuple[Notice, ...]

    @property
    def command(self) -> str:
        """The option that reproduces it."""
        return f"--lr-ratio {self.ratio:g}"

    def __str__(self) -> str:
        return f"{self.ratio:.1f}, likely {self.low:.1f} to {self.high:.1f}"


def estimate(
    optimizer: Optimizer,
    betas: tuple[float, float] = (0.9, 0.99),
    progress: Progress | None = None,
    *,
    to: str = "lion",
    decay: str = "scaled",
    weights: Mapping[int | str, TensorRef] | None = None,
) -> RatioEstimate:
    """Estimate the lr ratio from the moments, read once in blocks.

    Args:
        optimizer: State of AdamW or Adam.
        betas: Lion's betas.
        progress: Called with the number of bytes of each block read.
        to: "lion", or "lion-sf", whose smaller steps want a smaller ratio.
        decay: What happens to the weight decay, as in `Settings`.
        weights: The weights by key of their slots, where known: they are read for the share outside
            Lion's box.

    Raises:
        RefusedError: The run is too young, or its updates too large or too sparse, to tell.
    """
    # What of a step LionSF takes at pure noise, which is the most that it ever takes there.
    factor = formulas.agreement_factor(0, betas) if to == "lion-sf" else 1.0
    noise_ratio = formulas.noise_ratio(betas)
    offered = (
        f"--lr-ratio {noise_ratio * factor:.2f} is the value for pure noise with betas {betas}"
    )
    steps = max((slot_step(slot) or 0.0 for slot in optimizer.slots.values()), default=0.0)
    if steps < LEAST_STEPS:
        raise RefusedError(
            f"--lr-ratio auto needs {LEAST_STEPS} steps of AdamW, this run has {steps:.0f}: "
            f"{offered}"
        )
    tensors = evidence(optimizer, betas, progress or (lambda _: None))
    counting = [item for group in tensors for item in group if item.counts]
    if not counting:
        raise RefusedError(
            "--lr-ratio auto finds no tensor to go by, all are sparse, without gradient or younger "
            f"than {LEAST_STEPS} steps: {offered}"
        )
    rms = update_rms(counting)
    if rms > MOST_UPDATE:
        raise RefusedError(
            f"--lr-ratio auto: AdamW's update has a root mean square of {rms:.3f}, above "
            f"{MOST_UPDATE}, so what the moments say will not last: {offered}"
        )
    found = min(noise_ratio, max(_CLIP * noise_ratio, mean(counting, "ratio")))
    ratio = round(found * factor, 2)
    lion = _Lion(ratio, betas, factor, 1 / ratio if decay == "kept" else 1.0)
    groups = tuple(
        _group(i, items, optimizer, lion, weights or {}) for i, items in enumerate(tensors)
    )
    every = [item for group in tensors for item in group]
    return RatioEstimate(
        ratio=ratio,
        low=LOW * ratio,
        high=ratio if to == "lion-sf" else HIGH * ratio,
        noise_ratio=noise_ratio * factor,
        betas=betas,
        update_rms=rms,
        steps=steps,
        groups=groups,
        sparse=tuple(item for item in every if item.is_sparse),
        warnings=tuple(ratio_notices(every)),
    )


def _group(
    index: int,
    items: list[TensorEvidence],
    optimizer: Optimizer,
    lion: _Lion,
    weights: Mapping[int | str, TensorRef],
) -> GroupEvidence:
    group = optimizer.groups[index]
    counting = [item for item in items if item.counts]
    rms = update_rms(counting) if counting else None
    lr = number(group.fields.get("lr")) or 0.0
    decay = number(group.fields.get("weight_decay")) or 0.0
    rate = lr * decay
    known = [weights[key] for key in group.params if key in weights]
    return GroupEvidence(
        index=index,
        elements=sum(item.elements for item in items),
        update_rms=rms,
        persistence=persistence(counting) if counting else None,
        step_ratio=1 / rms if rms else None,
        ratio=mean(counting, "ratio") if counting else None,
        spread_ratio=mean(counting, "spread_ratio") if counting else None,
        stale=mean(items, "stale") if items else None,
        zero=mean(items, "zero") if items else None,
        kurtosis=max((item.kurtosis for item in items if isfinite(item.kurtosis)), default=None),
        weight_growth=lion.growth(adam_betas(group.fields)[0], rate) if rate > 0 else None,
        settling_steps=1 / (2 * rate * lion.share) if rate > 0 else None,
        outside_box=_outside(known, lion.edge(decay)) if decay > 0 and known else None,
    )


def _outside(weights: list[TensorRef], edge: float) -> float | None:
    import numpy as np

    from liontool.checkpoint.values import blocks

    total = sum(weight.numel for weight in weights)
    beyond = sum(
        int(np.count_nonzero(np.abs(block) > edge))
        for weight in weights
        for block in blocks(weight)
    )
    return beyond / total if total else None

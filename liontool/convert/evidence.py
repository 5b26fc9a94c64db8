"""What the moments of one parameter say about its gradients, in one pass over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Fields, Optimizer, Slot
from liontool.convert import formulas
from liontool.convert.notices import slot_step
from liontool.convert.seeding import STALE, aligned, bias, second_moment
from liontool.states import MOMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

LEAST_STEPS = 100
_MOST_KURTOSIS = 6.0
_MOST_STALE = 0.05
_LEAST_PHI = 0.9
# Below this part of the update at pure noise the weights oscillate in curved directions.
_OSCILLATING = 0.83

Progress = Callable[[int], None]


@dataclass(frozen=True)
class TensorEvidence:
    """What one parameter's moments say.

    Attributes:
        label: The parameter.
        elements: How many it has.
        moving: How many of them ever had a gradient.
        update_rms: Root mean square of AdamW's update over the moving ones.
        persistence: s.
        ratio: k*.
        spread_ratio: k_G.
        kurtosis: Fourth moment of u against its square; 3 for a normal distribution.
        stale: Share of elements whose update is below 1e-4, never moved ones included.
        zero: Share of elements that never had a gradient.
        phi: Mean of what eps leaves of AdamW's step.
        matrix: Whether it has two dimensions or more.
        noise_rms: `update_rms` as pure noise would have it after these steps.
        step: Its step count.
    """

    label: str
    elements: int
    moving: int
    update_rms: float
    persistence: float
    ratio: float
    spread_ratio: float
    kurtosis: float
    stale: float
    zero: float
    phi: float
    matrix: bool
    noise_rms: float
    step: float | None

    @property
    def is_sparse(self) -> bool:
        """Whether too many elements are still for the formula to hold."""
        still = self.kurtosis > _MOST_KURTOSIS or self.stale > _MOST_STALE
        return still and isfinite(self.update_rms)

    @property
    def is_young(self) -> bool:
        """Whether it had too few steps."""
        return self.step is not None and self.step < LEAST_STEPS

    @property
    def is_damped(self) -> bool:
        """Whether eps takes a good part of AdamW's step away."""
        return self.counts and self.phi < _LEAST_PHI

    @property
    def oscillates(self) -> bool:
        """Whether it is a matrix with smaller updates than pure noise makes, and not by eps."""
        small = self.update_rms < _OSCILLATING * self.noise_rms
        return self.matrix and small and self.counts and not self.is_damped

    @property
    def counts(self) -> bool:
        """Whether it goes into the average."""
        return self.moving > 0 and isfinite(self.update_rms) and not self.is_sparse | self.is_young


def evidence(
    optimizer: Optimizer, betas: tuple[float, float], progress: Progress
) -> list[list[TensorEvidence]]:
    """The evidence of every parameter with both moments, by group."""
    return [
        [
            _evidence(optimizer.slots[key], group.fields, betas, progress)
            for key in group.params
            if key in optimizer.slots and _has_moments(optimizer.slots[key])
        ]
        for group in optimizer.groups
    ]


def _has_moments(slot: Slot) -> bool:
    moments = (slot.state.get(MOMENT), second_moment(slot))
    return all(isinstance(item, TensorRef) and item.numel > 0 for item in moments)


@dataclass
class _Sums:
    """Running sums over the elements of one tensor."""

    elements: int = 0
    moving: int = 0
    stale: int = 0
    square: float = 0.0
    fourth: float = 0.0
    phi: float = 0.0

    def add(self, first: Array, second: Array, biases: tuple[float, float], eps: float) -> None:
        """Take in a block of both moments.

        In the block's own precision, with sums in double from block to block.
        """
        import numpy as np

        self.elements += len(first)
        moves = second > 0
        if not moves.all():
            first, second = first[moves], second[moves]
        root = np.sqrt(second)
        root /= sqrt(biases[1])
        inverse = 1 / (root + eps)
        self.phi += float(np.dot(root, inverse))
        inverse *= first
        inverse /= biases[0]
        squares = np.square(inverse, out=inverse)
        self.moving += len(squares)
        self.stale += len(moves) - int(np.count_nonzero(squares >= STALE**2))
        self.square += float(squares.sum())
        self.fourth += float(np.dot(squares, squares))


def _evidence(
    slot: Slot, group: Fields, betas: tuple[float, float], progress: Progress
) -> TensorEvidence:
    import numpy as np

    beta1, beta2 = adam_betas(group)
    step, eps = slot_step(slot), number(group.get("eps")) or 0.0
    first, second = slot.state[MOMENT], second_moment(slot)
    biases = bias(beta1, step), bias(beta2, step)
    sums = _Sums()
    with np.errstate(all="ignore"):  # what is not finite shows in the sums
        for means, squares in aligned(first, second):
            sums.add(means, squares, biases, eps)
            progress(means.nbytes + squares.nbytes)
    return _concluded(slot.label, first, sums, (beta1, step), betas)


def _concluded(
    label: str,
    first: TensorRef,
    sums: _Sums,
    adam: tuple[float, float | None],
    betas: tuple[float, float],
) -> TensorEvidence:
    count, moving = sums.elements, sums.moving
    mean_square = sums.square / moving if moving else 0.0
    s = formulas.persistence(mean_square, *adam) if isfinite(mean_square) else nan
    return TensorEvidence(
        label=label,
        elements=count,
        moving=moving,
        update_rms=sqrt(mean_square) if isfinite(mean_square) else nan,
        persistence=s,
        ratio=formulas.drift_ratio(s, betas) if isfinite(s) else nan,
        spread_ratio=formulas.spread_ratio(s, betas),
        kurtosis=sums.fourth / moving / mean_square**2 if mean_square > 0 else 0.0,
        stale=sums.stale / count,
        zero=1 - moving / count,
        phi=sums.phi / moving if moving else 1.0,
        matrix=len(first.shape) > 1,
        noise_rms=sqrt(formulas.update_variance(*adam)),
        step=adam[1],
    )


def adam_betas(group: Fields) -> tuple[float, float]:
    """The betas that the moments were made with."""
    betas = group.get("betas", ())
    found = [number(beta) for beta in betas]
    return (found[0] or 0.0, found[1] or 0.0) if len(found) == 2 else (0.9, 0.999)

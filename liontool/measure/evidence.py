"""What the moments of one parameter say about its gradients, in one pass over them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isfinite, nan, sqrt
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Fields, Optimizer, Slot
from liontool.measure import formulas
from liontool.measure.adam_moments import (
    adam_betas,
    aligned,
    bias,
    has_moments,
    second_moment,
    slot_step,
)
from liontool.measure.products import dot, total
from liontool.measure.scratch import scratch
from liontool.states import MOMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

STALE = 1e-4
"""Adam moves an element whose update is smaller than this by next to nothing."""

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
    def is_telling(self) -> bool:
        """Whether the formula holds for it."""
        return self.moving > 0 and isfinite(self.update_rms) and not self.is_sparse

    @property
    def counts(self) -> bool:
        """Whether it goes into the average that a ratio is made of."""
        return self.is_telling and not self.is_young


def evidence(
    optimizer: Optimizer, betas: tuple[float, float], progress: Progress
) -> list[list[TensorEvidence]]:
    """The evidence of every parameter with both moments, by group."""
    return [
        [
            _evidence(optimizer.slots[key], group.fields, betas, progress)
            for key in group.params
            if key in optimizer.slots and has_moments(optimizer.slots[key])
        ]
        for group in optimizer.groups
    ]


@dataclass(frozen=True)
class Adam:
    """What turns one parameter's moments into updates.

    Attributes:
        beta1: Of the first moment.
        beta2: Of the second.
        eps: Added to the root.
        step: Its step count, where known.
    """

    beta1: float
    beta2: float
    eps: float
    step: float | None

    @classmethod
    def of(cls, slot: Slot, group: Fields) -> Adam:
        """That of a slot in its group."""
        return cls(*adam_betas(group), number(group.get("eps")) or 0.0, slot_step(slot))


class UpdateSums:
    """Running sums over AdamW's updates of one parameter.

    Args:
        adam: How they are made of the moments.
    """

    def __init__(self, adam: Adam) -> None:
        self._adam = adam
        roots = sqrt(bias(adam.beta2, adam.step))
        # u = m / b1 / (sqrt(v) / roots + eps): what does not differ by element waits until the end.
        self._eps = adam.eps * roots
        self._factor = roots / bias(adam.beta1, adam.step)
        self.elements = self.moving = self.stale = 0
        self.square = self.fourth = self.phi = 0.0

    def add(self, first: Array, second: Array) -> None:
        """Take in a block of both moments.

        In the block's own precision, with sums in double from block to block.
        """
        import numpy as np

        self.elements += len(first)
        if not (len(second) and second.min() > 0):
            moves = second > 0
            self.stale += len(second) - int(np.count_nonzero(moves))
            first, second = first[moves], second[moves]
        count = len(second)
        root = scratch("root", count, np.result_type(second, np.float16))
        inverse = scratch("inverse", count, root.dtype)
        np.sqrt(second, out=root)
        np.add(root, self._eps, out=inverse)
        np.reciprocal(inverse, out=inverse)
        self.phi += dot(root, inverse)
        squares = scratch("root", count, np.result_type(inverse, first))
        np.multiply(inverse, first, out=squares)
        np.square(squares, out=squares)
        large = scratch("large", count, np.bool_)
        np.greater_equal(squares, (STALE / self._factor) ** 2, out=large)
        self.moving += count
        self.stale += count - int(np.count_nonzero(large))
        self.square += total(squares) * self._factor**2
        self.fourth += dot(squares, squares) * self._factor**4

    def add_still(self, count: int) -> None:
        """Take in elements both of whose moments are zero."""
        self.elements += count
        self.stale += count

    def join(self, other: UpdateSums) -> None:
        """Take in what another one has taken in."""
        for name in ("elements", "moving", "stale", "square", "fourth", "phi"):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def concluded(
        self, label: str, shape: Sequence[int], betas: tuple[float, float]
    ) -> TensorEvidence:
        """What they say.

        Args:
            label: The parameter.
            shape: Its shape.
            betas: Of the Lion that is to follow.
        """
        adam = self._adam.beta1, self._adam.step
        count, moving = self.elements, self.moving
        mean_square = self.square / moving if moving else 0.0
        s = formulas.persistence(mean_square, *adam) if isfinite(mean_square) else nan
        return TensorEvidence(
            label=label,
            elements=count,
            moving=moving,
            update_rms=sqrt(mean_square) if isfinite(mean_square) else nan,
            persistence=s,
            ratio=formulas.drift_ratio(s, betas) if isfinite(s) else nan,
            spread_ratio=formulas.spread_ratio(s, betas),
            kurtosis=self.fourth / moving / mean_square**2 if mean_square > 0 else 0.0,
            stale=self.stale / count,
            zero=1 - moving / count,
            phi=self.phi / moving if moving else 1.0,
            matrix=len(shape) > 1,
            noise_rms=sqrt(formulas.update_variance(*adam)),
            step=self._adam.step,
        )


def _evidence(
    slot: Slot, group: Fields, betas: tuple[float, float], progress: Progress
) -> TensorEvidence:
    import numpy as np

    first, second = slot.state[MOMENT], second_moment(slot)
    sums = UpdateSums(Adam.of(slot, group))
    with np.errstate(all="ignore"):  # what is not finite shows in the sums
        for means, squares in aligned(first, second):
            sums.add(means, squares)
            progress(means.nbytes + squares.nbytes)
    return sums.concluded(slot.label, first.shape, betas)


# --- averages -----------------------------------------------------------------------------------


def mean(items: Iterable[TensorEvidence], name: str) -> float:
    """Mean of a field over elements."""
    every = list(items)
    total = sum(item.elements for item in every)
    return float(sum(getattr(item, name) * item.elements for item in every)) / total


def update_rms(items: Iterable[TensorEvidence]) -> float:
    """Root mean square of the updates of all moving elements."""
    every = list(items)
    total = sum(item.moving for item in every)
    return sqrt(sum(item.update_rms**2 * item.moving for item in every) / total)


def persistence(items: Iterable[TensorEvidence]) -> float:
    """s over elements, in the root mean square."""
    every = list(items)
    total = sum(item.elements for item in every)
    return sqrt(sum(item.persistence**2 * item.elements for item in every) / total)

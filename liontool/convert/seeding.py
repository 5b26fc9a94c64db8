"""Lion's first momentum, made of Adam's: copied, scaled, or zeros.

Adam's average holds about 10 gradients and Lion's about 100, so Adam's is noisier. liontool's Lion
knows that (the horizon) and goes on averaging from there; others get the average scaled down to the
noise that theirs would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.document import Computed, TensorRef
from liontool.measure.adam_moments import aligned, bias
from liontool.measure.evidence import STALE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

_BLOCK = 1 << 20
_HALVES = {"complex32": "float16", "complex64": "float32", "complex128": "float64"}


def horizon(adam_beta1: float, step: float | None, lion_beta1: float) -> float:
    """How many gradients the copied momentum counts for.

    Never fewer than Lion's own mix takes: else its first step would not be AdamW's next one.
    """
    return max(bias(adam_beta1, step) / (1 - adam_beta1), 1 / (1 - lion_beta1))


def zeros(like: TensorRef, shape: tuple[int, ...] | None = None) -> TensorRef:
    """Zeros of the same dtype, and of the same shape unless another is given."""
    shape = like.shape if shape is None else shape
    size = TensorRef(like.dtype, shape, like.source).nbytes

    def blocks() -> Iterator[bytes | memoryview]:
        block = memoryview(bytes(min(size, _BLOCK)))
        for offset in range(0, size, _BLOCK):
            yield block[: size - offset]

    return TensorRef(like.dtype, shape, Computed(blocks), like.label)


def scaled(moment: TensorRef, factor: float) -> TensorRef:
    """The moment times `factor`, rounded once."""
    return _mapped(moment, (), lambda block: block * factor)


def without_stale(moment: TensorRef, update: tuple[TensorRef, float, float, float]) -> TensorRef:
    """The moment with zeros where Adam's update is smaller than `STALE`.

    Args:
        moment: Adam's first moment, or that scaled.
        update: The second moment, the biases of both, and eps.
    """
    second, first_bias, second_bias, eps = update

    def keep(first: Array, square: Array) -> Array:
        import numpy as np

        with np.errstate(all="ignore"):
            size = np.abs(first) / first_bias
            still = ~(size >= STALE * (np.sqrt(square / second_bias) + eps))
        return np.where(still & np.isfinite(first), 0, first)

    return _mapped(moment, (second,), keep)


def _mapped(
    moment: TensorRef, others: tuple[TensorRef, ...], change: Callable[..., Array]
) -> TensorRef:
    real = _HALVES.get(moment.dtype, moment.dtype)

    def blocks() -> Iterator[bytes | memoryview]:
        from liontool.checkpoint.values import to_bytes

        for arrays in aligned(moment, *others):
            yield to_bytes(change(*arrays), real)

    return TensorRef(moment.dtype, moment.shape, Computed(blocks), moment.label)

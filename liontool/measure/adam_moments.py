"""Adam's two moments: which tensors they are, how far their averages have come, blocks of both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Fields, Slot
from liontool.states import MOMENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


def slot_step(slot: Slot) -> float | None:
    """Adam's step count for one parameter, where its state has one."""
    return number(slot.state.get("step"))


def second_moment(slot: Slot) -> Value:
    """What Adam divides by: its largest average of squares under amsgrad."""
    return slot.state.get("max_exp_avg_sq", slot.state.get("exp_avg_sq"))


def has_moments(slot: Slot) -> bool:
    """Whether a slot has both moments, with elements."""
    moments = (slot.state.get(MOMENT), second_moment(slot))
    return all(isinstance(item, TensorRef) and item.numel > 0 for item in moments)


def adam_betas(group: Fields) -> tuple[float, float]:
    """The betas that the moments were made with."""
    betas = group.get("betas", ())
    found = [number(beta) for beta in betas]
    return (found[0] or 0.0, found[1] or 0.0) if len(found) == 2 else (0.9, 0.999)


def bias(beta: float, step: float | None) -> float:
    """How much of a gradient an average that began at zero holds after `step` steps."""
    return 1.0 if step is None or step < 1 else 1 - beta**step


def aligned(*tensors: TensorRef) -> Iterator[tuple[Array, ...]]:
    """Elements of several tensors of one shape side by side, in blocks of equal length.

    Complex ones come as pairs of reals, which is how Adam treats them.
    """
    streams = [_reals(tensor) for tensor in tensors]
    heads = [next(stream, None) for stream in streams]
    while all(head is not None and len(head) for head in heads):
        arrays = [head for head in heads if head is not None]
        count = min(map(len, arrays))
        yield tuple(array[:count] for array in arrays)
        heads = [
            array[count:] if len(array) > count else next(stream, None)
            for array, stream in zip(arrays, streams, strict=True)
        ]


def _reals(tensor: TensorRef) -> Iterator[Array]:
    from liontool.checkpoint.values import blocks

    for block in blocks(tensor):
        yield block.view(block.real.dtype)

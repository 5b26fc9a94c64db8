"""Whether a Lion's momentum is what a conversion makes of Adam's first moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Slot
from liontool.inspect.bytewise import identical, is_zero
from liontool.inspect.checksums import Advance
from liontool.inspect.record import Record
from liontool.measure.adam_moments import aligned, slot_step
from liontool.measure.seed_scale import scale_factor

# Half a unit in the last place, relative to the number; and the smallest number of each dtype.
_ROUNDING: Mapping[str, tuple[float, float]] = {
    "float64": (2.0**-52, 0.0), "float32": (2.0**-23, 2.0**-149),
    "float16": (2.0**-10, 2.0**-24), "bfloat16": (2.0**-7, 2.0**-133),
    "complex128": (2.0**-52, 0.0), "complex64": (2.0**-23, 2.0**-149),
    "float8_e4m3fn": (2.0**-3, 2.0**-9), "float8_e5m2": (2.0**-2, 2.0**-16),
}  # fmt: skip


@dataclass(frozen=True)
class Momentum:
    """A momentum and what it was made of.

    Attributes:
        after: Lion's.
        before: Adam's.
        slot: The source's state of the parameter.
        group: The source's hyperparameters of the parameter.
    """

    after: TensorRef
    before: TensorRef
    slot: Slot
    group: Mapping[str, Value]


def momentum_fault(pair: Momentum, record: Record, advance: Advance) -> str:
    """What is wrong with a momentum; "" if it is what the rule makes of the source's."""
    if (pair.after.dtype, pair.after.shape) != (pair.before.dtype, pair.before.shape):
        return "has another type or shape than the source's first moment"
    if record.momentum == "zeros":
        return "" if is_zero(pair.after, advance) else "must be zero and is not"
    if record.momentum == "copy" and not record.zero_stale:
        same = identical(pair.after, pair.before, advance)
        return "" if same else "is not bit-identical to the source's first moment"
    factor = 1.0
    if record.momentum == "scaled":
        factor = scale_factor(_beta1(pair.group), slot_step(pair.slot), record.betas[1])
    wrong = _wrong_elements(pair, factor, record.zero_stale, advance)
    return f"{wrong:,} elements are not {factor:.6g} times the source's" if wrong else ""


def _beta1(group: Mapping[str, Value]) -> float:
    betas = group.get("betas")
    found = number(betas[0]) if betas else None
    return 0.9 if found is None else found


def _wrong_elements(pair: Momentum, factor: float, zero_stale: bool, advance: Advance) -> int:
    """How many elements are not the source's times a factor, rounded once; zeroed ones are fine."""
    import numpy as np

    relative, least = _ROUNDING.get(pair.after.dtype, (2.0**-7, 2.0**-24))
    wrong = 0
    for after, before in aligned(pair.after, pair.before):
        advance(after.nbytes)
        with np.errstate(all="ignore"):
            wanted = before * before.dtype.type(factor)
            good = np.abs(after - wanted) <= np.abs(wanted) * relative + least
            good |= (after == wanted) | (np.isnan(after) & np.isnan(wanted))
        if zero_stale:
            good |= after == 0
        wrong += int(np.count_nonzero(~good))
    return wrong

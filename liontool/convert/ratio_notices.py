"""What to look at before an estimated ratio is trusted."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from liontool.convert.notices import some
from liontool.convert.report import Notice
from liontool.measure.evidence import TensorEvidence


def ratio_notices(tensors: list[TensorEvidence]) -> Iterable[Notice]:
    """The tensors that were left out of the ratio, and those that it does not fit well."""
    sparse = [item for item in tensors if item.is_sparse]
    if sparse:
        yield Notice(
            "sparse",
            f"sparse, left out of the ratio: {_names(sparse)}; Lion will move these rows twice too "
            "fast or more: give them a larger ratio or leave them to AdamW, and see --zero-stale",
        )
    broken = [item for item in tensors if not isfinite(item.update_rms)]
    if broken:
        yield Notice("nonfinite", f"not finite, left out of the ratio: {_names(broken)}")
    small = [item for item in tensors if item.is_damped]
    if small:
        yield Notice(
            "eps",
            f"eps takes part of AdamW's step away in {_names(small)} (the least is left in "
            f"{min(small, key=lambda item: item.phi).phi:.0%}): the matching ratio is larger there",
        )
    slow = [item for item in tensors if item.oscillates]
    if slow:
        yield Notice(
            "oscillating",
            f"oscillating, with updates below those of pure noise: {_names(slow)}; Lion will be "
            "quieter and slower there at this ratio",
        )


def _names(items: list[TensorEvidence]) -> str:
    return some([_named(item.label) for item in items])


def _named(label: str) -> str:
    return f"parameter {label}" if label.isdecimal() else label

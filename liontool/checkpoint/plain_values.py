"""Values of a document as ordinary Python values, for reports, JSON and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import Opaque, TensorRef, Value
from liontool.checkpoint.values import scalar

_DEPTH = 16
_ELLIPSIS = "..."


def plain(value: Value, depth: int = _DEPTH) -> Any:
    """`value` as dicts, lists, tuples and scalars.

    A tensor of one element becomes its number, any other tensor "float32[3, 4]", an unknown object
    "<module.Class>". What lies deeper than `depth`, a recursive value for one, becomes "...".
    """
    if isinstance(value, TensorRef):
        return scalar(value) if value.numel == 1 else f"{value.dtype}{list(value.shape)}"
    if isinstance(value, Opaque):
        return f"<{value.name}>"
    if isinstance(value, Mapping):
        if depth == 0:
            return _ELLIPSIS
        return {key: plain(item, depth - 1) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if depth == 0:
            return _ELLIPSIS
        items = [plain(item, depth - 1) for item in value]
        return tuple(items) if getattr(value, "kind", type(value).__name__) == "tuple" else items
    return value

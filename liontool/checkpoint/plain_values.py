"""Values of a document as ordinary Python values, for reports, JSON and messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import Opaque, TensorRef, Value
from liontool.checkpoint.values import scalar

_DEPTH = 16
_ELLIPSIS = "..."


def plain(value: Value, *, tensors: bool = False, depth: int = _DEPTH) -> Any:
    """`value` as dicts, lists, tuples and scalars.

    A tensor of one element becomes its number, any other tensor "float32[3, 4]", an unknown object
    "<module.Class>". What lies deeper than `depth`, a recursive value for one, becomes "...".

    Args:
        value: From a document's tree.
        tensors: Leave tensors as they are.
        depth: How many containers may lie inside each other.
    """

    def inner(item: Value) -> Any:
        return plain(item, tensors=tensors, depth=depth - 1)

    if isinstance(value, TensorRef):
        return value if tensors else _described(value)
    if isinstance(value, Opaque):
        return f"<{value.name}>"
    if isinstance(value, Mapping):
        return {key: inner(item) for key, item in value.items()} if depth else _ELLIPSIS
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        if not depth:
            return _ELLIPSIS
        items = [inner(item) for item in value]
        return tuple(items) if is_tuple(value) else items
    return value


def is_tuple(value: Sequence[Value]) -> bool:
    """Whether a sequence, or what a view stands for, is a tuple."""
    return isinstance(value, tuple) or getattr(value, "kind", None) == "tuple"


def _described(tensor: TensorRef) -> Any:
    return scalar(tensor) if tensor.numel == 1 else f"{tensor.dtype}{list(tensor.shape)}"

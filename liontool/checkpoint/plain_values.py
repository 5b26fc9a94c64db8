"""Values of a document as ordinary Python values, for reports, JSON and messages."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence, Set
from typing import Any

from liontool.checkpoint.document import Opaque, TensorRef, Value, is_tuple
from liontool.checkpoint.values import scalar
from liontool.errors import LayoutError

_DEPTH = 16
_MOST_REPEATED = 10_000
_MOST_BITS = 4096
_ELLIPSIS = "..."


def plain(value: Value) -> Any:
    """`value` as dicts, lists, tuples and scalars.

    A tensor of one element becomes its number, any other tensor "float32[3, 4]", an unknown object
    "<module.Class>". What lies deeper than 16 containers, a recursive value for one, becomes "...",
    and so do containers that stand in several places, once they have added 10,000 items.
    """
    return _Reading().plain(value, _DEPTH)


class _Reading:
    """One call of `plain`; counts, since a few lists that share lists can stand for billions."""

    def __init__(self) -> None:
        self._seen: set[int] = set()
        self._left = _MOST_REPEATED

    def plain(self, value: Value, depth: int) -> Any:
        if isinstance(value, TensorRef):
            return _described(value)
        if isinstance(value, Opaque):
            return f"<{value.name}>"
        if isinstance(value, Mapping):
            if not depth or self._is_too_much(value):
                return _ELLIPSIS
            return {_key(key): self.plain(item, depth - 1) for key, item in value.items()}
        if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
            if not depth or self._is_too_much(value):
                return _ELLIPSIS
            items = [self.plain(item, depth - 1) for item in value]
            return tuple(items) if is_tuple(value) else items
        if isinstance(value, int) and value.bit_length() > _MOST_BITS:
            return f"integer of {value.bit_length()} bits"  # Python refuses to spell it
        return value

    def _is_too_much(self, value: Mapping[Any, Any] | Sequence[Any]) -> bool:
        """What stands in one place only is never too much: the file is as long."""
        if id(value) in self._seen:
            self._left -= len(value) + 1
        self._seen.add(id(value))
        return self._left < 0


def _key(key: Any) -> Any:
    return f"<{key.name}>" if isinstance(key, Opaque) else key


def _described(tensor: TensorRef) -> Any:
    if tensor.numel != 1 or tensor.dtype.startswith("complex"):
        return f"{tensor.dtype}{list(tensor.shape)}"
    return scalar(tensor)


def json_value(value: Any) -> Any:
    """Plain values in the types of strict JSON, for people: not everything can be read back.

    NaN and infinities, which JSON lacks, become "nan", "inf" and "-inf"; other objects their text.
    """
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (Sequence, Set)) and not isinstance(value, (str, bytes, bytearray)):
        return [json_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def json_exact(value: Value, where: str) -> Any:
    """A value of a document in the types of JSON, from which it can be made again.

    Tuples become lists, tensors of one element numbers. NaN and infinities stay, as Python's JSON
    writes them.

    Args:
        value: From a document's tree.
        where: What to call it in the message.

    Raises:
        LayoutError: JSON has no way to keep it.
    """
    found = plain(value)
    todo = [(value, found)]
    while todo:
        old, new = todo.pop()
        if isinstance(new, Mapping):
            if not all(isinstance(key, str) for key in old):
                raise _unkept(where, "a mapping whose keys are not all text")
            todo.extend((old[key], new[key]) for key in new)
        elif isinstance(new, (list, tuple)):
            todo.extend(zip(old, new, strict=True))
        elif isinstance(new, str) and not isinstance(old, str):
            raise _unkept(where, new)
        elif not (new is None or isinstance(new, (bool, int, float, str))):
            raise _unkept(where, f"{new!r:.40}")
    return found


def _unkept(where: str, what: str) -> LayoutError:
    return LayoutError(
        f"{where} holds {what}, which the JSON of a safetensors file cannot keep; "
        "write the whole checkpoint or a .pt file: see -o"
    )

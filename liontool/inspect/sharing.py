"""Tensors whose values lie in another tensor too (tied weights, views): they count once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from liontool.checkpoint.document import Stored, TensorRef
from liontool.checkpoint.values import span_of
from liontool.inspect.listing import Item


def shared(items: Iterable[Item]) -> Mapping[int, Item]:
    """By identity of the tensor, the item that holds its values already.

    Of several that are the same the first holds them, else the one that reaches further.
    """
    found: dict[int, Item] = {}
    last: Item | None = None
    for _, _, _, _, item in sorted(_stored(items), key=lambda entry: entry[:4]):
        if last is not None and (_holds(last, item) or is_same(last.tensor, item.tensor)):
            found[id(item.tensor)] = last
        else:
            last = item
    return found


def is_same(first: TensorRef, second: TensorRef) -> bool:
    """Whether two tensors are the same elements in the same order."""
    return _view(first) == _view(second)


def _stored(items: Iterable[Item]) -> Iterable[tuple[Path, int, int, int, Item]]:
    """Items with file, start, length (longest first) and turn."""
    for turn, item in enumerate(items):
        if isinstance(item.tensor.source, Stored) and item.tensor.numel:
            span = span_of(item.tensor)
            yield span.file, span.offset, -span.length, turn, item


def _view(tensor: TensorRef) -> object:
    assert isinstance(tensor.source, Stored)
    span = span_of(tensor)
    return span, tensor.dtype, tensor.shape, tensor.source.stride


def _holds(outer: Item, inner: Item) -> bool:
    """Whether a contiguous tensor has all bytes of another one."""
    a, b = span_of(outer.tensor), span_of(inner.tensor)
    inside = a.offset <= b.offset and b.offset + b.length <= a.offset + a.length
    return a.file == b.file and inside and outer.tensor.is_contiguous

"""Whether two tensors hold the same bytes, or nothing but zeros; read in blocks, in step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.values import byte_blocks
from liontool.inspect.checksums import Advance


def identical(first: TensorRef, second: TensorRef, advance: Advance) -> bool:
    """Whether dtype, shape and every byte are the same."""
    if (first.dtype, first.shape) != (second.dtype, second.shape):
        return False
    for a, b in _in_step(byte_blocks(first), byte_blocks(second)):
        advance(len(a))
        if a != b:
            return False
    return True


def is_zero(tensor: TensorRef, advance: Advance) -> bool:
    """Whether every byte is zero."""
    for block in byte_blocks(tensor):
        advance(len(block))
        if bytes(block).strip(b"\0"):
            return False
    return True


def _in_step(
    first: Iterable[bytes | memoryview], second: Iterable[bytes | memoryview]
) -> Iterator[tuple[memoryview, memoryview]]:
    """Blocks of equal length; views that lie apart come in other blocks than those in one piece."""
    streams = iter(first), iter(second)
    heads = [memoryview(b""), memoryview(b"")]
    while True:
        for i, stream in enumerate(streams):
            if not len(heads[i]):
                block = next(stream, None)
                if block is None:
                    return
                heads[i] = memoryview(block)
        length = min(map(len, heads))
        yield heads[0][:length], heads[1][:length]
        heads = [head[length:] for head in heads]

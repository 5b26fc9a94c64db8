"""Elements of tensors that nobody has loaded: single numbers, blocks, and whether all are finite.

Numbers of one element need no numpy, so that `inspect` starts without it. Everything else goes
block by block through numpy.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from liontool.checkpoint import encoding
from liontool.checkpoint.document import ITEM_SIZES, Computed, Span, Stored, TensorRef
from liontool.checkpoint.encoding import is_float, to_bytes
from liontool.checkpoint.reading import BLOCK, ranges, too_short
from liontool.errors import LayoutError, ReadError

if TYPE_CHECKING:
    from liontool.checkpoint.encoding import Array

__all__ = [
    "all_finite",
    "blocks",
    "byte_blocks",
    "count_nonfinite",
    "from_scalars",
    "is_float",
    "read",
    "scalar",
    "span_of",
    "to_bytes",
]

_STRUCT_CODES: Mapping[str, str] = {
    "float64": "d", "float32": "f", "float16": "e",
    "int64": "q", "int32": "i", "int16": "h", "int8": "b", "bool": "?",
    "uint64": "Q", "uint32": "I", "uint16": "H", "uint8": "B",
    "qint8": "b", "quint8": "B", "qint32": "i",
}  # fmt: skip

# Width of a real number in bytes, and the smallest positive bit pattern that is infinity or NaN.
# The negative ones are the same with the sign bit set, and everything above them.
_NONFINITE: Mapping[str, tuple[int, int]] = {
    "float64": (8, 0x7FF0 << 48),
    "float32": (4, 0x7F80 << 16),
    "float16": (2, 0x7C00),
    "bfloat16": (2, 0x7F80),
    "complex128": (8, 0x7FF0 << 48),
    "complex64": (4, 0x7F80 << 16),
    "complex32": (2, 0x7C00),
    "float8_e4m3fn": (1, 0x7F),
    "float8_e5m2": (1, 0x7C),
}


def span_of(tensor: TensorRef) -> Span:
    """The bytes of a stored tensor from its first element to its last."""
    source = tensor.source
    if not isinstance(source, Stored):
        raise ValueError(f"{tensor.label}: a computed tensor lies in no file")
    size = ITEM_SIZES[tensor.dtype]
    steps = sum((n - 1) * step for n, step in zip(tensor.shape, source.stride, strict=True))
    length = (steps + 1) * size if tensor.numel else 0
    whole = source.storage.span
    return Span(whole.file, whole.offset + source.offset * size, length)


def read(tensor: TensorRef) -> bytes:
    """All elements in order, little-endian."""
    return b"".join(bytes(block) for block in byte_blocks(tensor))


def byte_blocks(tensor: TensorRef, size: int = BLOCK) -> Iterator[bytes | memoryview]:
    """The elements in order, little-endian, in blocks of whole elements.

    A block is valid until the next one is asked for.
    """
    source, item = tensor.source, ITEM_SIZES[tensor.dtype]
    size = max(size // item, 1) * item
    if isinstance(source, Computed):
        yield from source.blocks()
    elif not tensor.numel:
        return
    elif not tensor.is_contiguous:
        yield from _gathered(tensor, source, size)
    else:
        swapped = source.storage.byteorder != "little"
        for block in ranges(span_of(tensor), size):
            yield byteswapped(block, tensor.dtype) if swapped else block


def _gathered(tensor: TensorRef, source: Stored, size: int) -> Iterator[bytes]:
    """The elements of a view that does not lie in order, through a mapping of the file."""
    import numpy as np

    # Dimensions of one element say nothing, and numpy has a limit on their number.
    pairs = [(n, step) for n, step in zip(tensor.shape, source.stride, strict=True) if n != 1]
    item = ITEM_SIZES[tensor.dtype]
    mapped = _mapped(span_of(tensor), item)
    view = np.lib.stride_tricks.as_strided(
        mapped, [n for n, _ in pairs], [step * item for _, step in pairs], writeable=False
    )
    for window in _windows(tuple(view.shape), size // item):
        data = np.ascontiguousarray(view[window]).tobytes()
        yield data if source.storage.byteorder == "little" else byteswapped(data, tensor.dtype)


def _mapped(span: Span, item: int) -> Array:
    """A range of a file as elements of `item` bytes; pages of a mapping are not our memory."""
    import numpy as np

    try:
        with open(span.file, "rb") as file:
            if os.fstat(file.fileno()).st_size < span.offset + span.length:
                raise too_short(span.file)
            count = span.length // item
            return np.memmap(file, f"V{item}", mode="r", offset=span.offset, shape=(count,))
    except OSError as error:
        raise ReadError(f"{span.file}: cannot be mapped: {error.strerror}") from error


def _windows(shape: tuple[int, ...], limit: int) -> Iterator[tuple[int | slice, ...]]:
    """Indices that cut an array, in order, into parts of at most `limit` elements."""
    inner = 1
    for n in shape[1:]:
        inner *= n
    if not shape:
        yield ()
    elif inner > limit:
        for i in range(shape[0]):
            yield from ((i, *window) for window in _windows(shape[1:], limit))
    else:
        rows = limit // inner
        yield from ((slice(i, i + rows),) for i in range(0, shape[0], rows))


def byteswapped(block: bytes | memoryview, dtype: str) -> bytes:
    """A block of whole elements in the other byte order."""
    import numpy as np

    width, _ = _NONFINITE.get(dtype, (ITEM_SIZES[dtype], 0))  # halves of complex numbers
    return np.frombuffer(block, f"u{width}").byteswap().tobytes()


def scalar(tensor: TensorRef) -> int | float | bool:
    """The number in a tensor of one element.

    Raises:
        LayoutError: The tensor has another number of elements, or complex ones.
    """
    if tensor.numel != 1 or tensor.dtype.startswith("complex"):
        shape = list(tensor.shape)
        raise LayoutError(
            f"{tensor.label or 'a tensor'}: must be one real number, "
            f"found a tensor of {tensor.dtype} with shape {shape}"
        )
    data, order = _element(tensor)
    if tensor.dtype in encoding.FP8:
        return encoding.fp8_value(data[0], tensor.dtype)
    if tensor.dtype == "bfloat16":
        data = data[::-1] if order == ">" else data
        return float(struct.unpack("<f", b"\0\0" + data)[0])
    number: int | float | bool = struct.unpack(order + _STRUCT_CODES[tensor.dtype], data)[0]
    return number


def _element(tensor: TensorRef) -> tuple[bytes, str]:
    """The bytes of the only element, and their order as `struct` writes it."""
    if isinstance(tensor.source, Computed):
        return read(tensor), "<"
    span = span_of(tensor)
    data = next(ranges(span, span.length))
    return bytes(data), "<" if tensor.source.storage.byteorder == "little" else ">"


def blocks(tensor: TensorRef, size: int = BLOCK) -> Iterator[Array]:
    """The elements in order as flat arrays, about `size` bytes of the file each.

    Floats of 32 bits and less come as float32, everything else as numpy's type of that name.
    An array is valid until the next one is asked for, and must not be changed.
    """
    for block in byte_blocks(tensor, size):
        yield encoding.decoded(block, tensor.dtype)


def from_scalars(
    dtype: str, numbers: Sequence[int | float | bool], shape: tuple[int, ...] = ()
) -> TensorRef:
    """A tensor of a few given numbers."""
    import numpy as np

    exact = dtype in _STRUCT_CODES and not is_float(dtype)
    data = to_bytes(np.array(numbers, encoding.numpy_dtype(dtype) if exact else np.float64), dtype)
    tensor = TensorRef(dtype, shape, Computed(lambda: iter([data])))
    if tensor.nbytes != len(data):
        raise ValueError(f"{len(numbers)} numbers do not fill the shape {list(shape)}")
    return tensor


def all_finite(block: bytes | memoryview, dtype: str, byteorder: str = "little") -> bool:
    """Whether a block of whole elements is free of NaN and infinity.

    Read as integers, positive ones are the largest signed and negative ones the largest unsigned
    numbers: two maxima tell, without a copy, at the speed of memory.
    """
    import numpy as np

    if dtype in encoding.ONLY_NAN:
        return bytes([encoding.ONLY_NAN[dtype]]) not in bytes(block)
    if dtype not in _NONFINITE or not len(block):
        return True
    width, first = _NONFINITE[dtype]
    order = "<" if byteorder == "little" else ">"
    if np.frombuffer(block, f"{order}i{width}").max() >= first:
        return False
    return bool(np.frombuffer(block, f"{order}u{width}").max() < first | 1 << (8 * width - 1))


def count_nonfinite(tensor: TensorRef) -> int:
    """How many elements are NaN or infinite; a complex one with such a half counts once."""
    import numpy as np

    if not is_float(tensor.dtype) and not tensor.dtype.startswith("complex"):
        return 0
    return sum(int(np.count_nonzero(~np.isfinite(block))) for block in blocks(tensor))

"""Storages that an edit brings into a torch file: their keys, and their bytes in the file's byte order."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from liontool.checkpoint import values
from liontool.checkpoint.copying import Checksum, Piece, Stream, check_finite, of_tensor
from liontool.checkpoint.document import ITEM_SIZES, Computed, Storage, Stored, TensorRef


class NewStorages:
    """Hands out keys for tensors that are not in the file yet, one storage a tensor.

    Args:
        taken: Keys that the file has already.

    Attributes:
        tensors: The new tensors by key, in the order they came.
    """

    def __init__(self, taken: Iterable[str] = ()) -> None:
        numbers = [int(key) for key in taken if key.isascii() and key.isdigit()]
        self._next = max(numbers, default=-1) + 1
        self.tensors: dict[str, TensorRef] = {}

    def add(self, tensor: TensorRef) -> str:
        """The key under which `tensor` is going to be stored."""
        key = str(self._next + len(self.tensors))
        self.tensors[key] = tensor
        return key


def by_storage(tensors: Iterable[TensorRef]) -> Mapping[Storage, tuple[TensorRef, ...]]:
    """Stored tensors by the storage that they look into."""
    found: dict[Storage, list[TensorRef]] = {}
    for tensor in tensors:
        if isinstance(tensor.source, Stored):
            found.setdefault(tensor.source.storage, []).append(tensor)
    return {storage: tuple(views) for storage, views in found.items()}


def body(tensor: TensorRef, byteorder: str, *, scan: bool, crc: Checksum | None = None) -> Piece:
    """The piece for a new storage that holds all of `tensor` in order and nothing else."""
    if byteorder == "little" or _width(tensor.dtype) == 1:
        return of_tensor(tensor, scan=scan, crc=crc)
    return Stream(replace(tensor, source=Computed(lambda: _swapped(tensor, scan))), crc=crc)


def _swapped(tensor: TensorRef, scan: bool) -> Iterator[bytes]:
    """The elements with their bytes turned round; looked at before, while they can be read."""
    kind = {2: "H", 4: "I", 8: "Q"}[_width(tensor.dtype)]
    for block in values.byte_blocks(tensor):
        if scan:
            check_finite(tensor, block)
        numbers = array(kind, bytes(block))
        numbers.byteswap()
        yield numbers.tobytes()


def _width(dtype: str) -> int:
    """Bytes that are turned round together: an element, or half of a complex one."""
    size = ITEM_SIZES[dtype]
    return size // 2 if dtype.startswith("complex") else size

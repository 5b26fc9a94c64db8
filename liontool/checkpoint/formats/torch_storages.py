"""Storages of torch files: the ids of those that are there, room and bytes for new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from liontool.checkpoint import values
from liontool.checkpoint.copying import Checksum, Piece, Stream, check_finite, of_tensor
from liontool.checkpoint.document import Computed, Storage, Stored, TensorRef, Value
from liontool.checkpoint.formats.pickle_encode import storage_id
from liontool.checkpoint.formats.pickle_nodes import PersistentId
from liontool.checkpoint.formats.pickle_tensors import persistent_values


class NewStorages:
    """Hands out room for tensors that are not in the file yet, one storage a tensor.

    Args:
        taken: Keys that the file has already.
        ending: What persistent ids of this kind of file have at their end.

    Attributes:
        tensors: The new tensors by key, in the order they came.
    """

    def __init__(self, taken: Iterable[str] = (), ending: tuple[Value, ...] = ()) -> None:
        numbers = [int(key) for key in taken if key.isascii() and key.isdigit()]
        self._next = max(numbers, default=-1) + 1
        self._ending = ending
        self.tensors: dict[str, TensorRef] = {}

    def __call__(self, tensor: TensorRef) -> tuple[Value, ...]:
        """The persistent id under which `tensor` is going to be stored."""
        key = str(self._next + len(self.tensors))
        self.tensors[key] = tensor
        return (*storage_id(tensor, key), *self._ending)


def by_storage(tensors: Iterable[TensorRef]) -> Mapping[Storage, tuple[TensorRef, ...]]:
    """Stored tensors by the storage that they look into."""
    found: dict[Storage, list[TensorRef]] = {}
    for tensor in tensors:
        if isinstance(tensor.source, Stored):
            found.setdefault(tensor.source.storage, []).append(tensor)
    return {storage: tuple(views) for storage, views in found.items()}


def body(tensor: TensorRef, byteorder: str, *, scan: bool, crc: Checksum | None = None) -> Piece:
    """The piece for a new storage that holds all of `tensor` in order and nothing else."""
    if byteorder == "little":
        return of_tensor(tensor, scan=scan, crc=crc)
    return Stream(replace(tensor, source=Computed(lambda: _big_endian(tensor, scan))), crc=crc)


def _big_endian(tensor: TensorRef, scan: bool) -> Iterator[bytes]:
    """The elements turned round; NaN and infinity can only be told before."""
    for block in values.byte_blocks(tensor):
        if scan:
            check_finite(tensor, block)
        yield values.byteswapped(block, tensor.dtype)


def storage_key(pid: PersistentId) -> Value:
    """The key in a storage's persistent id; None for an id of another kind (a module's source)."""
    parts = persistent_values(pid)
    return parts[2] if len(parts) > 4 and parts[0] in ("storage", b"storage") else None

"""The files of torch.save before 1.6, and of `_use_new_zipfile_serialization=False` since.

One after the other: pickles of a magic number, a version, facts about the system, the object, the
keys of its storages; then for each key a count of elements (8 bytes) and the elements, both
little-endian on every machine. The layout is that of torch/serialization.py (PyTorch, BSD licence).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from liontool.checkpoint.copying import Literal, Piece, Raw, of_tensor
from liontool.checkpoint.document import Edit, Span, Storage, TensorRef, Value
from liontool.checkpoint.formats.pickle_content import items, kind_of
from liontool.checkpoint.formats.pickle_emit import emit
from liontool.checkpoint.formats.pickle_encode import encode, storage_id
from liontool.checkpoint.formats.pickle_nodes import Atom, Composite, Node, resolve
from liontool.checkpoint.formats.pickle_parse import PickleLimits, parse, protocol_of
from liontool.checkpoint.formats.pickle_tensors import check_count, item_size, persistent_values
from liontool.checkpoint.formats.pickle_tree import Tree, collect_storages
from liontool.checkpoint.formats.torch_storages import (
    NewStorages,
    by_storage,
    storage_key,
)
from liontool.checkpoint.formats.zip_records import read_span
from liontool.errors import FormatError, TruncatedError

_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001
_COUNT = 8
_WINDOW = 1 << 24


def is_legacy(head: bytes) -> bool:
    """Whether a file begins with the magic number, in whatever protocol."""
    return _MAGIC.to_bytes(10, "little") in head[:32] or str(_MAGIC).encode() in head[:32]


class TorchLegacyDocument:
    """A legacy torch file as a Document."""

    container = "torch legacy"

    def __init__(self, path: Path, name: str = "") -> None:
        self.path = path
        self.name = name
        pickles = Pickles(path)
        self._little = _read_head(pickles)
        self._head = Span(path, 0, pickles.offset)
        root, self._protocol = pickles.next()
        start = pickles.offset
        keys = pickles.keys()
        self.overhead = pickles.offset
        self._keys = Span(path, start, pickles.offset - start)
        self._storages = _storages(keys, _item_sizes(root, path), pickles)
        self._views: dict[tuple[Value, ...], Storage] = {}
        self._tree = Tree(root, self._storage_of, str(path))

    @property
    def tree(self) -> Value:
        """The pickle as plain values."""
        return self._tree.value

    @property
    def facts(self) -> Mapping[str, str]:
        """Byte order of the data and of the machine, protocol."""
        return {
            "byte order": "little",
            "pickle protocol": str(self._protocol),
            "saved on a machine of byte order": "little" if self._little else "big",
        }

    def rewritten(
        self,
        edits: Sequence[Edit],
        *,
        scan: frozenset[TensorRef],
        provenance: Mapping[str, Any] | None,
    ) -> list[Piece]:
        """The pieces of the same file with `edits` applied. It has no place for the provenance."""
        added = NewStorages(map(str, self._storages), ending=(None,))
        with self._tree.edited(edits, added) as root:
            pickle = emit(root, self._protocol)
            used = {storage_key(pid) for pid in collect_storages(root)}
        kept = [key for key in self._storages if key in used]
        names = [*kept, *added.tensors]
        same = names == list(self._storages)
        keys = Raw(self._keys) if same else Literal(emit(encode(names), self._protocol))
        pieces: list[Piece] = [Raw(self._head), Literal(pickle), keys]
        scanned = self._by_root(scan)
        for key in kept:
            pieces += _copied(self._storages[key], scanned.get(key, ()))
        for tensor in added.tensors.values():
            pieces += [Literal(_count(tensor)), of_tensor(tensor, scan=tensor in scan)]
        return pieces

    def _by_root(self, scan: Iterable[TensorRef]) -> Mapping[Value, tuple[TensorRef, ...]]:
        """Tensors by the key of the storage that holds them, be it through a view of it."""
        roots = {storage: key for key, storage in self._storages.items()}
        roots |= {view: key for (_, key, _), view in self._views.items()}
        found: dict[Value, tuple[TensorRef, ...]] = {}
        for storage, tensors in by_storage(scan).items():
            key = roots.get(storage)
            found[key] = (*found.get(key, ()), *tensors)
        return found

    def _storage_of(self, pid: tuple[Value, ...]) -> Storage:
        """The storage of "storage", class, key, device, count, and None or (key, offset, count)."""
        if len(pid) != 6 or pid[0] not in ("storage", b"storage"):
            raise FormatError(f"{self.path}: the pickle refers to something that is no storage")
        root = self._storages.get(pid[2])
        if root is None:
            raise FormatError(f"{self.path}: needs storage {pid[2]!a}, which is not in the file")
        check_count(pid, root)
        if pid[5] is None:
            return root
        what = (pid[1], pid[2], pid[5])
        if what not in self._views:
            self._views[what] = _view(root, pid[5], _item_size(pid, self.path), self.path)
        return self._views[what]


class Pickles:
    """The pickles at the start of a file, one after the other.

    Their length is known only when they are read, and gigabytes of storages may follow. So a window
    is read, and a wider one if the pickle does not end in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size = path.stat().st_size
        self.offset = 0

    def next(self) -> tuple[Node, int]:
        """The next pickle's root and protocol."""
        left = self.size - self.offset
        window = _WINDOW
        while True:
            data = read_span(Span(self.path, self.offset, min(window, left, PickleLimits.BYTES)))
            try:
                root, used = parse(data, where=str(self.path))
            except TruncatedError:
                if len(data) < window:
                    raise
                window *= 4
            else:
                self.offset += used
                return root, protocol_of(data)

    def keys(self) -> list[str | int] | None:
        """What the next pickle lists; None if it is no list of strings or integers.

        Without a Tree, whose views hold each other: there may be hundreds of thousands.
        """
        root, _ = self.next()
        if not isinstance(root, Composite) or kind_of(root) not in ("list", "tuple"):
            return None
        nodes = [resolve(slot.value) for slot in items(root)]
        found = [node.value for node in nodes if isinstance(node, Atom)]
        good = len(found) == len(nodes) and all(isinstance(key, (str, int)) for key in found)
        return found if good else None

    def value(self, root: Node) -> Value:
        """A pickle without storages as a plain value."""
        return Tree(root, self._no_storage, str(self.path)).value

    def _no_storage(self, pid: tuple[Value, ...]) -> NoReturn:
        raise FormatError(f"{self.path}: a storage is used where there are none")


def _read_head(pickles: Pickles) -> bool:
    """Whether the machine that wrote the file was little-endian; the rest must be as known."""
    magic, version, system = (pickles.value(pickles.next()[0]) for _ in range(3))
    if magic != _MAGIC or version != _VERSION:
        raise FormatError(
            f"{pickles.path}: is a legacy torch file of version {version!a}; {_VERSION} can be read"
        )
    return not isinstance(system, Mapping) or bool(system.get("little_endian", True))


def _storages(
    keys: Sequence[str | int] | None, sizes: Mapping[Value, int], pickles: Pickles
) -> dict[Value, Storage]:
    """Storages by key in the order of the file, each after its count."""
    path, end = pickles.path, pickles.offset
    if keys is None:
        raise FormatError(f"{path}: the list of storages is none")
    found: dict[Value, Storage] = {}
    for key in keys:
        if key in found or key not in sizes:
            raise FormatError(f"{path}: storage {key!a} is listed twice, or never used")
        if end + _COUNT > pickles.size:
            raise _cut(path)
        count = int.from_bytes(read_span(Span(path, end, _COUNT)), "little", signed=True)
        span = Span(path, end + _COUNT, count * sizes[key])
        end = span.offset + span.length
        if count < 0 or end > pickles.size:
            raise _cut(path)
        found[key] = Storage(span, label=f"storage {key}")
    if end != pickles.size:
        raise FormatError(
            f"{path}: {pickles.size - end} bytes follow the storages; "
            "only files with one torch.save in them are read"
        )
    return found


def _cut(path: Path) -> FormatError:
    return FormatError(
        f"{path}: ends before its storages do; the file is cut short "
        "(disk full, or still being written or downloaded)"
    )


def _item_sizes(root: Node, path: Path) -> dict[Value, int]:
    """Bytes an element of each storage, by its key: the first use of a key tells."""
    sizes: dict[Value, int] = {}
    for node in collect_storages(root):
        pid = persistent_values(node)
        if len(pid) == 6 and isinstance(pid[2], (str, int)):
            sizes.setdefault(pid[2], _item_size(pid, path))
    return sizes


def _item_size(pid: tuple[Value, ...], path: Path) -> int:
    size = item_size(pid)
    if size is None:
        raise FormatError(f"{path}: holds a storage of the unknown class {pid[1]!a}")
    return size


def _view(root: Storage, view: Value, item: int, path: Path) -> Storage:
    """The part of a storage that view metadata (key, offset, count) names."""
    numbers = view[1:] if isinstance(view, tuple) and len(view) == 3 else ()
    if not numbers or not all(isinstance(n, int) and n >= 0 for n in numbers):
        raise FormatError(f"{path}: {root.label} has a view that makes no sense: {view!a}")
    offset, count = numbers
    if (offset + count) * item > root.span.length:
        raise FormatError(f"{path}: {root.label} has a view that reaches behind its end")
    span = Span(path, root.span.offset + offset * item, count * item)
    return Storage(span, label=f"{root.label}, a view")


def _copied(storage: Storage, scanned: tuple[TensorRef, ...]) -> list[Piece]:
    """A storage with its count; in one piece with its neighbours if nobody looks at it."""
    span = storage.span
    return [Raw(Span(span.file, span.offset - _COUNT, _COUNT)), Raw(span, scanned)]


def _count(tensor: TensorRef) -> bytes:
    """The count that stands before a new storage: of bytes if it has no dtype of its own."""
    return int(storage_id(tensor, "")[-1]).to_bytes(_COUNT, "little")

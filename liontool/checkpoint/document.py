"""What a file looks like once it is read: a Document, its tensors, and edits at Places.

A Document shows one file as a tree of plain values: `None`, `bool`, `int`, `float`, `complex`,
`str`, `bytes`, mappings, sequences, `TensorRef` and `Opaque`. The mappings and sequences are
read-only views of whatever the format keeps underneath (a pickle graph, a safetensors header), so a
framework reads all formats alike. The same node is always the same view object: `is` tells aliases
from equals.

Changes are never made in the tree. They are Edits at Places, applied when the format is written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, Protocol, TypeGuard

# A value in the tree. Recursive types help neither mypy nor the reader here.
Value = Any
Key = str | int | float | bool | None

_PLAIN = frozenset({type(None), bool, int, float, complex, str, bytes, bytearray})

ITEM_SIZES: Mapping[str, int] = {
    "float64": 8, "float32": 4, "float16": 2, "bfloat16": 2,
    "float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1,
    "float8_e8m0fnu": 1,
    "complex128": 16, "complex64": 8, "complex32": 4,
    "int64": 8, "int32": 4, "int16": 2, "int8": 1, "bool": 1,
    "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1,
    "qint8": 1, "quint8": 1, "qint32": 4,
}  # fmt: skip
"""Bytes an element, by torch's name of the dtype without `torch.`."""


@dataclass(frozen=True, slots=True)
class Span:
    """A range of bytes of a file on disk."""

    file: Path
    offset: int
    length: int


@dataclass(frozen=True, eq=False, slots=True)
class Storage:
    """A run of elements in a file; several tensors may look into one. Compared by identity.

    Attributes:
        span: Where the bytes are.
        byteorder: "little" or "big".
        crc: CRC-32 of the bytes where the container keeps a trustworthy one, else None.
        label: What the container calls it ("data/17"), for messages.
    """

    span: Span
    byteorder: str = "little"
    crc: int | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor's elements lie in a storage; `stride` and `offset` count elements."""

    storage: Storage
    stride: tuple[int, ...]
    offset: int = 0


@dataclass(frozen=True, slots=True)
class Computed:
    """A tensor's elements are made block by block: contiguous, little-endian, `nbytes` in all."""

    blocks: Callable[[], Iterator[bytes | memoryview]]


@dataclass(frozen=True, eq=False, slots=True)
class TensorRef:
    """A tensor that nobody has loaded. Compared by identity.

    Attributes:
        dtype: torch's name without `torch.`, a key of `ITEM_SIZES`.
        shape: Sizes of the dimensions.
        source: Where its elements come from.
        label: What to call it in messages: "optimizer.state.3.exp_avg".
    """

    dtype: str
    shape: tuple[int, ...]
    source: Stored | Computed
    label: str = ""

    @property
    def numel(self) -> int:
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.numel * ITEM_SIZES[self.dtype]

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        if not isinstance(self.source, Stored):
            return True
        expected = 1
        for size, stride in zip(self.shape[::-1], self.source.stride[::-1], strict=True):
            if size != 1 and stride != expected and self.numel:
                return False
            expected *= size
        return True


@dataclass(frozen=True, eq=False)
class Opaque:
    """An object of a class that liontool does not know; shown, carried along, never imported.

    Attributes:
        name: "module.Class" as the file spells it.
        arguments: What its constructor was given.
        state: What was set on it afterwards, a mapping of attributes for ordinary objects.
    """

    name: str
    arguments: Sequence[Value]
    state: Value


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value lives: the name of a document, and the keys and indices that lead to it."""

    document: str
    path: tuple[Key, ...] = ()

    def __truediv__(self, key: Key) -> Place:
        return Place(self.document, (*self.path, key))

    def __str__(self) -> str:
        return ".".join(str(key) for key in self.path)


@dataclass(frozen=True, slots=True)
class Delete:
    """Take the entry at `place` out of its mapping or sequence."""

    place: Place


@dataclass(frozen=True, slots=True)
class Replace:
    """Put `value` where another was. Only this slot changes, not aliases of the old value."""

    place: Place
    value: Value


@dataclass(frozen=True, slots=True)
class Insert:
    """Add `value` to the end of a mapping under the last key of `place`."""

    place: Place
    value: Value


@dataclass(frozen=True, slots=True)
class Rename:
    """Give the entry at `place`, in a mapping, another key; it keeps its value and its turn."""

    place: Place
    key: Key


Edit = Delete | Replace | Insert | Rename


class Document(Protocol):
    """One file, read. Made by `formats.open_document`, written by `formats.rewrite`."""

    @property
    def name(self) -> str:
        """Path of the file below its source, "" where the source is the file itself."""

    @property
    def container(self) -> str:
        """ "torch zip", "torch legacy", "safetensors" or "json"."""

    @property
    def path(self) -> Path:
        """The file on disk."""

    @property
    def tree(self) -> Value:
        """The file as plain values."""

    @property
    def facts(self) -> Mapping[str, str]:
        """What else there is to say for `inspect`: byte order, version, protocol, metadata."""

    @property
    def overhead(self) -> int:
        """Bytes of headers and pickles, everything but tensor data."""


def is_plain(value: Value) -> bool:
    """Whether a value surely has nothing below it; who walks a long list asks this first."""
    return type(value) in _PLAIN


def is_list(value: Value) -> TypeGuard[Sequence[Value]]:
    """Whether `value` is a list or a tuple, or stands for one."""
    return isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray))


def is_tuple(value: Sequence[Value]) -> bool:
    """Whether a sequence, or what a view stands for, is a tuple."""
    return isinstance(value, tuple) or getattr(value, "kind", None) == "tuple"


def tensors(tree: Value) -> Iterator[tuple[tuple[Key, ...], TensorRef]]:
    """Every tensor below `tree` once, with the first path that leads to it. Cycles are fine."""
    seen: set[int] = set()
    todo: list[tuple[tuple[Key, ...], Value]] = [((), tree)]
    while todo:
        path, value = todo.pop()
        if id(value) in seen:
            continue
        if isinstance(value, TensorRef):
            seen.add(id(value))
            yield path, value
        elif isinstance(value, Mapping):
            seen.add(id(value))
            below = ((key, value[key]) for key in reversed(list(value)))
            todo.extend(((*path, key), item) for key, item in below if not is_plain(item))
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
            seen.add(id(value))
            below = ((i, value[i]) for i in reversed(range(len(value))))
            todo.extend(((*path, key), item) for key, item in below if not is_plain(item))
        elif isinstance(value, Opaque):
            seen.add(id(value))
            todo.append(((*path, value.name), value.state))

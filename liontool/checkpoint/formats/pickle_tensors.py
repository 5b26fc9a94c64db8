"""Tensors, storages and numpy scalars among the nodes, told by the names of what rebuilds them.

The functions named here are those of torch/_utils.py and torch/_tensor.py (PyTorch, BSD licence). A
tensor is only taken for one if all of it is understood; anything else stays an opaque call.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import islice
from math import prod
from typing import Any

from liontool.checkpoint.document import ITEM_SIZES, Opaque, Storage, Stored, TensorRef, Value
from liontool.checkpoint.formats.pickle_content import (
    MAX_ARGUMENTS,
    arguments_of,
    class_of,
    items,
    state_of,
)
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Global,
    Node,
    PersistentId,
    Ref,
    Tuple,
    resolve,
)
from liontool.errors import FormatError, LimitError

TYPED_STORAGES = {
    "DoubleStorage": "float64", "FloatStorage": "float32", "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16", "LongStorage": "int64", "IntStorage": "int32",
    "ShortStorage": "int16", "CharStorage": "int8", "ByteStorage": "uint8", "BoolStorage": "bool",
    "ComplexDoubleStorage": "complex128", "ComplexFloatStorage": "complex64",
    "QInt8Storage": "qint8", "QUInt8Storage": "quint8", "QInt32Storage": "qint32",
}  # fmt: skip
"""dtype of each storage class that has one."""

UNTYPED = "UntypedStorage"
MAX_DIMENSIONS = 64
MAX_REPEATED = 1 << 28
"""Elements that a tensor may claim beyond those of its storage (expanded tensors do)."""

_STORAGE_MODULES = frozenset({"torch", "torch.cuda", "torch.storage"})
_SHORT = 64
_REBUILD = {"_rebuild_tensor": 4, "_rebuild_tensor_v2": 6, "_rebuild_tensor_v3": 7}
_BIG = 1 << 63


def persistent_values(node: PersistentId) -> tuple[Value, ...]:
    """A persistent id as plain values; a class in it is its full name, "torch.FloatStorage"."""
    pid = resolve(node.items[0])
    if isinstance(pid, Tuple) and len(pid.items) <= MAX_ARGUMENTS:
        return tuple(_simple(resolve(item)) for item in pid.items)
    return (_simple(pid),)


def item_size(pid: tuple[Value, ...]) -> int | None:
    """Bytes of an element of the storage with this id, None if its class is not known."""
    module, _, name = str(pid[1] if len(pid) > 1 else "").rpartition(".")
    if module not in _STORAGE_MODULES:
        return None
    return 1 if name == UNTYPED else ITEM_SIZES.get(TYPED_STORAGES.get(name, ""))


def check_count(pid: tuple[Value, ...], storage: Storage) -> None:
    """A FormatError if a persistent id claims another number of elements than its storage has."""
    size, count = item_size(pid), pid[4]
    there = storage.span.length
    if not isinstance(count, int) or count < 0 or (size and count != there // size):
        raise FormatError(
            f"{storage.span.file}: {storage.label} has {there} bytes; the pickle claims {count!a} "
            "elements, and these do not agree; the file is damaged"
        )


def _simple(node: Node) -> Value:
    if isinstance(node, Atom):
        return node.value
    if isinstance(node, Tuple) and len(node.items) <= MAX_ARGUMENTS:
        values = [resolve(item) for item in node.items]
        return tuple(atom.value if isinstance(atom, Atom) else None for atom in values)
    return node.full_name if isinstance(node, Global) else Opaque("object", (), None)


def tensor_parts(node: Node) -> tuple[str, list[Node]] | None:
    """Function and arguments if the node rebuilds a plain tensor or a Parameter."""
    for _ in range(4):
        if not isinstance(node, Call):
            return None
        name, arguments = class_of(node), [resolve(item) for item in arguments_of(node)]
        module, _, function = name.rpartition(".")
        if name == "torch._tensor._rebuild_from_type_v2":
            unwrapped = _from_type(arguments)
            if unwrapped is None:
                return None
            function, arguments = unwrapped
        elif module != "torch._utils":
            return None
        if function in _REBUILD:
            return function, arguments
        if not (function.startswith("_rebuild_parameter") and arguments):
            return None
        node = arguments[0]
    return None


def storage_in(node: Node) -> PersistentId | None:
    """The persistent id of the storage that a rebuilt tensor looks into."""
    parts = tensor_parts(node)
    pid = parts[1][0] if parts and parts[1] else None
    return pid if isinstance(pid, PersistentId) else None


def _from_type(arguments: list[Node]) -> tuple[str, list[Node]] | None:
    """What `_rebuild_from_type_v2(function, type, arguments, state)` calls for torch's types."""
    if len(arguments) != 4:
        return None
    function, kind, inner = arguments[:3]
    if not isinstance(function, Global) or not isinstance(kind, Global):
        return None
    if not isinstance(inner, Tuple) or len(inner.items) > MAX_ARGUMENTS:
        return None
    plain = ("torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter")
    if function.module != "torch._utils" or kind.full_name not in plain:
        return None
    return function.name, [resolve(item) for item in inner.items]


def tensor(
    node: Node, storage_of: Callable[[PersistentId], Storage], label: str, where: str
) -> TensorRef | None:
    """The tensor that a node rebuilds, checked against its storage.

    Returns:
        None if it is no tensor, or one whose elements are not simply those of its storage.

    Raises:
        FormatError: It reaches beyond its storage, or its sizes make no sense.
        LimitError: It claims to repeat its storage beyond measure.
    """
    parts = tensor_parts(node)
    if parts is None:
        return None
    function, arguments = parts
    count, what = _REBUILD[function], f"{where}: tensor {label!a}"
    if len(arguments) < count:
        raise FormatError(f"{what} has {len(arguments)} arguments where {count} belong")
    pid = arguments[0]
    dtype = _dtype(pid, arguments[6] if function.endswith("v3") else None)
    marked_up = any(not _is_nothing(argument) for argument in arguments[count : count + 1])
    if not isinstance(pid, PersistentId) or dtype is None or marked_up:
        return None
    offset, shape, stride = (_integers(argument) for argument in arguments[1:4])
    if offset is None or shape is None or stride is None or len(offset) != 1:
        raise FormatError(
            f"{what} needs offset, sizes and strides that are whole numbers from 0 up"
        )
    storage = storage_of(pid)
    _check_bounds(dtype, offset[0], shape, stride, storage, what)
    return TensorRef(dtype, shape, Stored(storage, stride, offset[0]), label)


def _dtype(pid: Node, given: Node | None) -> str | None:
    """The dtype by the class of the storage, or the one that is given beside it."""
    if given is not None:
        known = isinstance(given, Global) and given.module == "torch" and given.name in ITEM_SIZES
        return given.name if known and isinstance(given, Global) else None
    parts = resolve(pid.items[0]) if isinstance(pid, PersistentId) else None
    if not isinstance(parts, Tuple) or len(parts.items) < 5:
        return None
    kind = resolve(parts.items[1])
    if not isinstance(kind, Global) or kind.module not in _STORAGE_MODULES:
        return None
    return "uint8" if kind.name == UNTYPED else TYPED_STORAGES.get(kind.name)


def _is_nothing(node: Node) -> bool:
    """Whether tensor metadata (conjugate and negative bits) says nothing."""
    return isinstance(node, Atom) and node.value is None


def _integers(node: Node) -> tuple[int, ...] | None:
    """One number or a tuple of them, none negative; torch.Size counts as a tuple."""
    nodes: Sequence[Node] = [node]
    if isinstance(node, Tuple):
        nodes = node.items
    elif isinstance(node, Call) and class_of(node) == "torch.Size":
        nodes = [slot.value for slot in islice(items(node), MAX_DIMENSIONS + 1)]
    if len(nodes) > MAX_DIMENSIONS:
        return None
    found = [atom.value for atom in map(resolve, nodes) if isinstance(atom, Atom)]
    good = len(found) == len(nodes) and all(type(n) is int and 0 <= n < _BIG for n in found)
    return _shared(tuple(found)) if good else None


@lru_cache(maxsize=1024)
def _shared(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """One tuple for all that are equal: thousands of tensors have a few shapes."""
    return numbers


def _check_bounds(
    dtype: str,
    offset: int,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    storage: Storage,
    what: str,
) -> None:
    if len(shape) != len(stride):
        raise FormatError(f"{what} has {len(shape)} sizes and {len(stride)} strides")
    numel = prod(shape)
    last = sum((size - 1) * step for size, step in zip(shape, stride, strict=True))
    reach = last + 1 if numel else 0
    there = storage.span.length // ITEM_SIZES[dtype]
    if offset + reach > there:
        raise FormatError(
            f"{what} reaches to element {offset + reach} of a storage that has {there} "
            f"({storage.label or 'no name'}); the file is cut off or damaged"
        )
    if numel > there + MAX_REPEATED:
        raise LimitError(f"{what} claims {numel} elements of a storage that has {there}")


# numpy scalars

_SCALARS = frozenset({"numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar"})
_LAYOUTS = {
    "f8": "d", "f4": "f", "f2": "e", "b1": "?",
    "i8": "q", "i4": "i", "i2": "h", "i1": "b", "u8": "Q", "u4": "I", "u2": "H", "u1": "B",
}  # fmt: skip


def numpy_scalar(node: Call) -> int | float | bool | None:
    """The number if the call makes a numpy scalar of a plain kind, else None."""
    if class_of(node) not in _SCALARS:
        return None
    arguments = [resolve(item) for item in arguments_of(node)]
    if len(arguments) != 2:
        return None
    layout, data = _numpy_layout(arguments[0]), bytes_of(arguments[1])
    if layout is None or data is None or struct.calcsize(layout) != len(data):
        return None
    number: int | float | bool = struct.unpack(layout, data)[0]
    return number


def _numpy_layout(dtype: Node) -> str | None:
    """How struct spells a numpy dtype."""
    if not isinstance(dtype, Call) or class_of(dtype) != "numpy.dtype":
        return None
    code = next(map(resolve, arguments_of(dtype)), None)
    layout = _LAYOUTS.get(code.value) if isinstance(code, Atom) else None
    if layout is None:
        return None
    state = state_of(dtype)
    order = resolve(state.items[1]) if isinstance(state, Tuple) and len(state.items) > 1 else None
    big = isinstance(order, Atom) and order.value == ">"
    return (">" if big else "<") + layout


def bytes_of(node: Node) -> bytes | None:
    """Bytes in any spelling: as such, or as protocols 0 to 2 write them, encoded from text."""
    if isinstance(node, Call) and class_of(node) in _BYTES:
        arguments = arguments_of(node)
        if not arguments:
            return b""
        if len(arguments) == 1 and type(arguments[0]) in (Call, Atom):
            return _encoded(arguments[0])
    return _encoded(node)


def _encoded(node: Node) -> bytes | None:
    """Bytes, or text with its encoding: `_codecs.encode(text, "latin1")`."""
    if isinstance(node, Atom):
        return node.value if isinstance(node.value, bytes) else None
    if not isinstance(node, Call) or class_of(node) not in _ENCODERS:
        return None
    arguments = _spelled_out(node)
    if arguments is None or len(arguments) != 2 or arguments[1] not in ("latin1", "latin-1"):
        return None
    try:
        return arguments[0].encode("latin-1") if isinstance(arguments[0], str) else None
    except UnicodeEncodeError:
        return None


def _spelled_out(call: Call) -> list[Any] | None:
    """Values of arguments; None if they are no atoms, or long ones that many calls could share."""
    values: list[Any] = []
    all_shared = len(call.items) > 1 and type(call.items[1]) is Ref
    for node in arguments_of(call):
        atom = resolve(node)
        if not isinstance(atom, Atom):
            return None
        shared = all_shared or type(node) is Ref
        if shared and isinstance(atom.value, (str, bytes)) and len(atom.value) > _SHORT:
            return None
        values.append(atom.value)
    return values


_BYTES = frozenset(
    f"{module}.{name}" for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")
)
_ENCODERS = _BYTES | {"_codecs.encode"}

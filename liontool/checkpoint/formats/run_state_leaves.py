"""The leaves of a run's state as a document shows them: tensors that nobody has loaded, and names.

A dtype, a device, a function or a class is shown by its name, and is written as it was read.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

from liontool.checkpoint.document import ITEM_SIZES, Opaque, Stored, TensorRef, Value
from liontool.checkpoint.frameworks.torch_layout import at
from liontool.checkpoint.tagged_tree import Json, KeyPath, malformed, unknown

_TENSORS = ("$tensor", "$ndarray")
_LARGEST = 1 << 63


class Leaves:
    """Decodes the leaves of a file.

    Args:
        tensors: The tensors of the file beside it, by name.
        where: What that file is called, for messages.

    Attributes:
        tensors: The same.
    """

    def __init__(self, tensors: Mapping[str, TensorRef], where: str) -> None:
        self.tensors = tensors
        self._where = where
        self._made: dict[str, tuple[Json, TensorRef]] = {}
        self._nodes: dict[int, Json] = {}
        self._held: list[object] = []

    def encode(self, value: object, path: KeyPath) -> Json | None:
        """The node that a value was decoded from; None for a new one."""
        return self._nodes.get(id(value))

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        """The value that stands for a node."""
        way = _DECODERS.get(kind)
        if kind in _TENSORS:
            value = self._tensor({kind: payload}, payload, path)
        elif way is None:
            raise unknown(kind, path)
        else:
            value = way(payload, path)
        if isinstance(value, (TensorRef, Opaque)):
            self._nodes[id(value)] = {kind: payload}
            self._held.append(value)  # as long as its id stands for it
        return value

    def stored(self, tensor: TensorRef) -> TensorRef:
        """What is in the file for a tensor of the tree; a new one is itself."""
        node = self._nodes.get(id(tensor))
        if node is None:
            return tensor
        (payload,) = node.values()
        return self.tensors[payload["name"]]

    def _tensor(self, node: Json, payload: Json, path: KeyPath) -> TensorRef:
        """One tensor for each name: where two are one, they stay one."""
        name = payload.get("name") if isinstance(payload, dict) else None
        if not isinstance(name, str):
            raise malformed(path, "a tensor must have the name under which it lies")
        if name not in self.tensors:
            raise malformed(path, f"names the tensor '{name:.80}', which is not in {self._where}")
        if name not in self._made:
            self._made[name] = node, _seen_as(self.tensors[name], payload, path)
        before, tensor = self._made[name]
        if before != node:
            raise malformed(path, f"'{name:.80}' is read in two ways")
        return tensor


def _seen_as(tensor: TensorRef, payload: Mapping[str, Json], path: KeyPath) -> TensorRef:
    """A tensor as the tree describes it: bytes may stand for a dtype that the file has no word for.

    Strides are none of our business: in the file all lie row by row.
    """
    label = ".".join(map(str, path))
    dtype = payload.get("dtype", tensor.dtype)
    if "dtype" not in payload and "shape" not in payload:
        return TensorRef(tensor.dtype, tensor.shape, tensor.source, label)
    shape = _shape(payload.get("shape"), path)
    if not isinstance(dtype, str):
        raise malformed(path, "the dtype of a tensor must be its name")
    if dtype not in ITEM_SIZES:
        return TensorRef(tensor.dtype, tensor.shape, tensor.source, label)
    if prod(shape) * ITEM_SIZES[dtype] != tensor.nbytes:
        raise malformed(
            path, f"{dtype} of shape {list(shape)} does not fit the {tensor.nbytes:,} bytes it has"
        )
    assert isinstance(tensor.source, Stored)  # safetensors makes no others
    return TensorRef(dtype, shape, Stored(tensor.source.storage, _strides(shape)), label)


def _shape(shape: Json, path: KeyPath) -> tuple[int, ...]:
    if (
        not isinstance(shape, list)
        or not all(type(n) is int and n >= 0 for n in shape)
        or prod(max(n, 1) for n in shape) >= _LARGEST
    ):
        raise malformed(path, "the shape of a tensor must be a list of sizes")
    return tuple(shape)


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(prod(shape[i + 1 :]) for i in range(len(shape)))


# --- what is no tensor --------------------------------------------------------------------------


def _text(payload: Json, path: KeyPath) -> str:
    if not isinstance(payload, str):
        raise malformed(path, "must be called by a name")
    return payload


def _dtype(payload: Json, path: KeyPath) -> Opaque:
    return Opaque(f"torch.{_text(payload, path)}", (), None)


def _device(payload: Json, path: KeyPath) -> Opaque:
    return Opaque("torch.device", (_text(payload, path),), None)


def _live(payload: Json, path: KeyPath) -> Opaque:
    return Opaque(_text(payload, path), (), None)


def _size(payload: Json, path: KeyPath) -> tuple[int, ...]:
    return _shape(payload, path)


def _number(payload: Json, path: KeyPath) -> Value:
    """A NumPy scalar as a number of Python's, if it is one."""
    try:
        name, text = payload
        if name == "str":
            return _text(text, path)
        code = _CODES.get(name[1:])
        if name[0] not in "<>|" or code is None:
            return Opaque(f"numpy.{name:.40}", (), None)
        return struct.unpack(name[0].replace("|", "<") + code, bytes.fromhex(text))[0]
    except (TypeError, ValueError, LookupError, struct.error):
        raise malformed(path, "must be a NumPy scalar, its dtype and its bytes") from None


# NumPy's names of numbers by `struct`'s.
_CODES = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I",
    "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip

_DECODERS: Mapping[str, Callable[[Json, KeyPath], Any]] = {
    "$dtype": _dtype,
    "$device": _device,
    "$live": _live,
    "$size": _size,
    "$numpy": _number,
}


# --- writing ------------------------------------------------------------------------------------


class Changes:
    """Encodes the values of edits: new tensors get a name in the file.

    Args:
        leaves: Those of the file.
        tree: The tree as it is.

    Attributes:
        tensors: Those of the file and the new ones by name.
    """

    def __init__(self, leaves: Leaves, tree: Value) -> None:
        self._leaves = leaves
        self._tree = tree
        self.tensors = dict(leaves.tensors)

    def encode(self, value: object, path: KeyPath) -> Json | None:
        """The node of a value of an edit."""
        node = self._leaves.encode(value, path)
        if node is not None or not isinstance(value, TensorRef):
            return node
        name = self._free(".".join(map(str, path)))
        self.tensors[name] = value
        return {"$tensor": {"name": name, **self._kept(path)}}

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        """That of the file."""
        return self._leaves.decode(kind, payload, path)

    def _free(self, first: str) -> str:
        name, count = first, 1
        while name in self.tensors:
            count += 1
            name = f"{first}~{count}"
        return name

    def _kept(self, path: KeyPath) -> dict[str, Json]:
        """What a tensor in the place of another one keeps of it: its device, for one."""
        node = self._leaves.encode(at(self._tree, path), path)
        payload = node.get("$tensor", {}) if node is not None else {}
        own = ("name", "dtype", "shape", "stride")
        return {key: value for key, value in payload.items() if key not in own}


class Names:
    """Finds the names of all tensors that a tree names.

    Attributes:
        names: In the order of the tree, each once.
    """

    def __init__(self) -> None:
        self.names: dict[str, None] = {}

    def encode(self, value: object, path: KeyPath) -> Json | None:
        """Nothing is encoded with it."""
        return None

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        """Note the name of a tensor; nothing else matters."""
        if kind in _TENSORS:
            self.names[payload["name"]] = None
        return (kind, json.dumps(payload))

"""Tensors, arrays and the like of a live state, as leaves of a tagged tree.

A tensor is named by the first path that leads to it; a second path to the same memory, read the
same way, gets the same name, and decodes to the same tensor. In the file all lie row by row; where
memory is laid out otherwise without gaps (channels_last), the tree has the strides. Views with gaps
and expanded tensors come back row by row, with the same values.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from liontool.checkpoint.formats.safetensors_file import METADATA
from liontool.checkpoint.tagged_tree import Json, KeyPath, unknown
from liontool.checkpoint.unkept import dotted, refused_kind, type_name
from liontool.resume.arrays import array_bytes, is_plain_array, numpy_node
from liontool.resume.dtypes import NATIVE, name_of
from liontool.resume.live_functions import live_name
from liontool.resume.strides import is_dense

_LONGEST_NAME = 400


class WrittenLeaves:
    """Encodes the leaves of a live state."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        # By address: the names of what begins there. Copies live on here, so none is used twice.
        self._known: dict[int, tuple[tuple[str, Tensor, Json], ...]] = {}
        self._repeated: Counter[str] = Counter()

    def encode(self, value: object, path: KeyPath) -> Json | None:
        kind = type(value)
        if kind is Tensor or kind is Parameter:
            return self._tensor(value, path)
        if isinstance(value, Tensor):
            raise refused_kind(path, type_name(value), _subclass_advice(value))
        if kind is np.ndarray:
            return self._array(value, path)
        if isinstance(value, np.generic):
            return numpy_node(value, path)
        if kind is torch.Size:
            return {"$size": list(value)}  # type: ignore[call-overload]
        if isinstance(value, torch.dtype):
            return {"$dtype": name_of(value)}
        if isinstance(value, torch.device):
            return {"$device": str(value)}
        name = live_name(value)
        return {"$live": name} if name else None

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        raise unknown(kind, path)

    def _tensor(self, value: Any, path: KeyPath) -> Json:
        _check(value, path)
        tag: dict[str, Json] = {}
        if value.requires_grad:
            tag["requires_grad"] = True
        if type(value) is Parameter:
            tag["parameter"] = True
        tensor = value.detach() if tag else value
        if tensor.is_conj() or tensor.is_neg():
            tensor = tensor.resolve_conj().resolve_neg()
        if not tensor.is_cpu:
            tag["device"] = str(tensor.device)
        return {"$tensor": self._stored(tensor, tag, path)}

    def _array(self, value: Any, path: KeyPath) -> Json:
        if not is_plain_array(value):
            data = torch.from_numpy(array_bytes(value, path))
            tag = {"dtype": value.dtype.str, "shape": list(value.shape)}
            return {"$ndarray": {"name": self._named(data, path), **tag}}
        usable = value.flags.writeable and min(value.strides, default=0) >= 0
        tensor = torch.from_numpy(value if usable else value.copy())
        return {"$ndarray": self._stored(tensor, {}, path)}

    def _stored(self, tensor: Tensor, tag: dict[str, Json], path: KeyPath) -> Json:
        """`tag` with the name under which the tensor is written, and how to read it."""
        is_native = tensor.dtype in NATIVE
        if not is_native:
            tag["dtype"], tag["shape"] = name_of(tensor.dtype), list(tensor.shape)
        if not tensor.is_contiguous() and is_dense(tensor.shape, tensor.stride()):
            tag["stride"] = list(tensor.stride())
        address = tensor.data_ptr()
        known = self._known.get(address, ())
        for name, other, others_tag in known:
            if tag == others_tag and _is_same_view(tensor, other):
                return {"name": name, **tag}
        name = self._named(tensor if is_native else _as_bytes(tensor, path), path)
        if address:
            self._known[address] = (*known, (name, tensor, tag))
        return {"name": name, **tag}

    def _named(self, tensor: Tensor, path: KeyPath) -> str:
        first = name = _tensor_name(path)
        while name in self.tensors or name == METADATA:
            self._repeated[first] += 1
            name = f"{first}~{self._repeated[first] + 1}"
        self.tensors[name] = tensor
        return name


def _is_same_view(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors that begin at one address are the same elements in the same order."""
    return (
        one.dtype == other.dtype
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.device == other.device
    )


def _tensor_name(path: KeyPath) -> str:
    try:
        name = ".".join(map(str, path))
    except ValueError:  # Python refuses to spell numbers of thousands of digits
        name = ""
    if name.isprintable() and 0 < len(name) <= _LONGEST_NAME:
        return name
    return dotted(path)[:_LONGEST_NAME]


def _check(tensor: Tensor, path: KeyPath) -> None:
    """Refuse tensors whose elements are not a box of plain numbers in memory."""
    if tensor.layout != torch.strided:
        raise refused_kind(
            path, f"a tensor of the layout {tensor.layout}", "save its indices and values, or dense"
        )
    if tensor.is_quantized:
        raise refused_kind(
            path, "a quantised tensor", "save its int_repr() with the scale and the zero point"
        )
    if tensor.is_nested:
        raise refused_kind(path, "a nested tensor", "save its parts: unbind()")
    if tensor.is_meta:
        raise refused_kind(
            path, "a tensor on the meta device, which has no elements", "give it memory: to_empty()"
        )


def _subclass_advice(value: Tensor) -> str:
    if type(value).__name__ == "DTensor":
        return "runs of several processes cannot be saved yet: save full_tensor()"
    if is_lazy(value):
        return "run one batch through the model first, so that it gets its shape"
    return "save the plain tensors that it is made of"


def _as_bytes(tensor: Tensor, path: KeyPath) -> Tensor:
    """The elements row by row, as a flat tensor of bytes."""
    try:
        return tensor.contiguous().reshape(-1).view(torch.uint8)
    except RuntimeError:
        raise refused_kind(
            path, f"a tensor of the dtype {tensor.dtype}", "save it as another dtype"
        ) from None

"""The state of a run as a tagged tree and tensors by name, and back.

A tensor is named by the first path that leads to it; a second path to the same memory, read the
same way, gets the same name, and decodes to the same tensor. In the file all lie row by row; where
memory is laid out otherwise without gaps (channels_last), the tree has the strides. Views with gaps
and expanded tensors come back row by row, with the same values.
"""

from __future__ import annotations

import re
import sys
import types
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.nn.parameter import is_lazy

from liontool.checkpoint import tagged_tree
from liontool.checkpoint.formats.safetensors_file import DTYPES, MAX_DIMENSIONS, METADATA
from liontool.checkpoint.tagged_tree import Json, KeyPath, malformed, unknown
from liontool.checkpoint.unkept import dotted, refused, refused_kind, type_name
from liontool.errors import FormatError, ResumeError
from liontool.escape import safe
from liontool.resume.arrays import (
    array_bytes,
    array_of,
    is_plain_array,
    numpy_node,
    numpy_scalar,
)
from liontool.resume.difference import difference
from liontool.resume.strides import is_dense

__all__ = ["Encoded", "decode_state", "difference", "encode_state"]

_LONGEST_NAME = 400
_BROKEN = (ValueError, TypeError, RuntimeError, OverflowError)
"""What torch and numpy raise when a file asks for what cannot be."""

_DTYPES: Mapping[str, torch.dtype] = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in vars(torch).values()
    if isinstance(dtype, torch.dtype)
}
_NATIVE = frozenset(_DTYPES[name] for name in DTYPES.values() if name in _DTYPES)
_DEVICE = re.compile(r"[a-z]{1,20}(:\d{1,3})?")
_FIELDS = frozenset({"name", "stride", "dtype", "shape", "device", "requires_grad", "parameter"})


@dataclass(frozen=True)
class Encoded:
    """A state in two parts.

    Attributes:
        tree: For `json.dumps(tree, allow_nan=False)`.
        tensors: Detached, on any device, not copied unless a copy alone has plain bytes.
    """

    tree: Json
    tensors: dict[str, Tensor]


def encode_state(state: Mapping[str, object]) -> Encoded:
    """The state of a run, ready to be written.

    Raises:
        StateTypeError: There is something that no checkpoint can keep; names its path.
    """
    leaves = _Writing()
    tree = tagged_tree.encode(dict(state), leaves)
    return Encoded(tree, leaves.tensors)


def decode_state(
    tree: Json,
    tensor: Callable[[str], Tensor],
    live: Mapping[str, object],
    where: str = "",
) -> dict[str, Any]:
    """The state that `encode_state` made `tree` of.

    Args:
        tree: Any JSON.
        tensor: The tensor of a name; LookupError where there is none.
        live: The state of the run that goes on: functions and classes are taken from it.
        where: The file, for messages.

    Raises:
        FormatError: It is no state; names the path.
        ResumeError: The live run has not the function or class that the state had.
    """
    state = tagged_tree.decode(tree, _Reading(tensor, live), where)
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise FormatError(f"{where or 'the tree'}: holds no state of a run, which is an object")
    return state


class _Writing:
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
        if kind is torch.dtype:
            return {"$dtype": str(value).removeprefix("torch.")}
        if kind is torch.device:
            return {"$device": str(value)}
        name = _live_name(value)
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
        is_native = tensor.dtype in _NATIVE
        if not is_native:
            tag["dtype"], tag["shape"] = _name_of(tensor.dtype), list(tensor.shape)
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
            name = f"{first}~{self._repeated[first]}"
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


def _name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


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
    except _BROKEN:
        raise refused_kind(
            path, f"a tensor of the dtype {tensor.dtype}", "save it as another dtype"
        ) from None


def _live_name(value: object) -> str | None:
    """ "module.name" of a function or a class that has a place at the top of a module."""
    if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        return None
    module, name = value.__module__, value.__qualname__
    if not isinstance(module, str) or "<" in name:
        return None
    return f"{module}.{name}"


class _Reading:
    """Decodes the leaves of a state; every payload may come from a stranger."""

    def __init__(self, tensor: Callable[[str], Tensor], live: Mapping[str, object]) -> None:
        self._tensor_of = tensor
        self._live = live
        self._made: dict[tuple[str, str], tuple[Json, object]] = {}
        self._ways: dict[str, Callable[[Json, KeyPath], object]] = {
            "$tensor": self._tensor, "$ndarray": self._array, "$numpy": numpy_scalar,
            "$dtype": _dtype, "$device": _device, "$size": _size, "$live": self._live_value,
        }  # fmt: skip

    def encode(self, value: object, path: KeyPath) -> Json | None:
        raise refused(value, path)

    def decode(self, kind: str, payload: Json, path: KeyPath) -> object:
        way = self._ways.get(kind)
        if way is None:
            raise unknown(kind, path)
        return way(payload, path)

    def _tensor(self, payload: Json, path: KeyPath) -> object:
        return self._once("$tensor", payload, path, self._new_tensor)

    def _array(self, payload: Json, path: KeyPath) -> object:
        return self._once("$ndarray", payload, path, self._new_array)

    def _once(
        self, kind: str, tag: Json, path: KeyPath, new: Callable[[Json, KeyPath], object]
    ) -> object:
        """One value for each name: what shared memory shares it again."""
        if type(tag) is not dict or type(tag.get("name")) is not str or not tag.keys() <= _FIELDS:
            raise malformed(path, f"'{kind}' must have a name and known fields")
        key = (kind, tag["name"])
        if key not in self._made:
            self._made[key] = (tag, new(tag, path))
        first, value = self._made[key]
        if first != tag:
            raise malformed(path, f"'{dotted((tag['name'],))}' is read in two ways")
        return value

    def _new_tensor(self, tag: dict[str, Json], path: KeyPath) -> Tensor:
        tensor = self._fetched(tag["name"], path)
        if len(tag) == 1:
            return tensor
        tensor = self._laid_out(self._typed(tensor, tag, path), tag, path)
        flags = (tag.get("requires_grad", False), tag.get("parameter", False))
        if not all(type(flag) is bool for flag in flags):
            raise malformed(path, "'requires_grad' and 'parameter' must be true or false")
        tensor = self._placed(tensor, tag.get("device", "cpu"), path)
        try:
            if flags[1]:
                return Parameter(tensor, flags[0])
            return tensor.detach().requires_grad_(flags[0])
        except _BROKEN:
            raise malformed(path, f"a tensor of {tensor.dtype} can have no gradient") from None

    def _new_array(self, tag: dict[str, Json], path: KeyPath) -> object:
        tensor = self._fetched(tag["name"], path)
        if "dtype" in tag:
            return array_of(tensor.numpy(), tag["dtype"], tag.get("shape"), path)
        try:
            return self._laid_out(tensor, tag, path).numpy()
        except _BROKEN:
            raise malformed(path, f"numpy has no arrays of {tensor.dtype}") from None

    def _fetched(self, name: str, path: KeyPath) -> Tensor:
        try:
            return self._tensor_of(name)
        except LookupError:
            raise malformed(
                path, f"there is no tensor '{dotted((name,))}' beside the tree"
            ) from None

    def _typed(self, tensor: Tensor, tag: dict[str, Json], path: KeyPath) -> Tensor:
        """A tensor of a dtype that its file does not know, from its bytes."""
        if "dtype" not in tag:
            return tensor
        dtype, shape = _dtype(tag["dtype"], path), _size(tag.get("shape"), path)
        try:
            if tensor.dtype != torch.uint8 or tensor.dim() != 1:
                raise ValueError
            # A copy: these bytes may lie anywhere in their file, and elements need alignment.
            return tensor.clone().view(dtype).view(shape)
        except _BROKEN:
            raise malformed(
                path, f"{tuple(tensor.shape)} of {tensor.dtype} is not {list(shape)} of {dtype}"
            ) from None

    def _laid_out(self, tensor: Tensor, tag: dict[str, Json], path: KeyPath) -> Tensor:
        """The tensor with the strides that it had."""
        if "stride" not in tag:
            return tensor
        stride = _size(tag["stride"], path)
        if not is_dense(tensor.shape, stride):
            raise malformed(path, f"{list(stride)} are no strides of {list(tensor.shape)}")
        if tensor.stride() == tuple(stride):
            return tensor
        made = torch.empty_strided(tensor.shape, stride, dtype=tensor.dtype, device=tensor.device)
        return made.copy_(tensor)

    def _placed(self, tensor: Tensor, device: Json, path: KeyPath) -> Tensor:
        """The tensor on its device, as torch.load puts it there, unless it is copied from anyway.

        Modules copy what they load, and optimizers move their state: to move it here would take
        the memory of the device twice.
        """
        wanted = _device(device, path)
        if wanted == tensor.device or path[0] == "model" or "state" in path[1:3]:
            return tensor
        live = _at(self._live, path)
        if isinstance(live, Tensor):
            wanted = live.device
        try:
            return tensor.to(wanted)
        except (*_BROKEN, AssertionError):  # the device is not there
            return tensor

    def _live_value(self, payload: Json, path: KeyPath) -> object:
        if type(payload) is not str:
            raise malformed(path, "'$live' must be a name")
        live = _at(self._live, path)
        name = _live_name(live)
        if name != payload:
            found = "nothing" if live is None else safe(name or type_name(live))
            raise ResumeError(
                f"{dotted(path)}: the checkpoint was made with {dotted((payload,))} here, and the "
                f"run has {found} now; build the run with the same one"
            )
        return live


def _at(value: Any, path: KeyPath) -> object:
    """What the live state has at a path; None where there is nothing."""
    for key in path:
        if not isinstance(value, (Mapping, list, tuple, deque)):
            return None
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value


def _dtype(payload: Json, path: KeyPath) -> torch.dtype:
    if type(payload) is not str or payload not in _DTYPES:
        raise malformed(path, "'dtype' must be the name of a dtype of this torch")
    return _DTYPES[payload]


def _device(payload: Json, path: KeyPath) -> torch.device:
    if type(payload) is str and _DEVICE.fullmatch(payload):
        try:
            return torch.device(payload)
        except RuntimeError:
            pass
    raise malformed(path, "'device' must be the name of a device of this torch")


def _size(payload: Json, path: KeyPath) -> torch.Size:
    if (
        type(payload) is not list
        or len(payload) > MAX_DIMENSIONS
        or not all(map(_is_count, payload))
    ):
        raise malformed(path, "a shape or strides must be a list of counts")
    return torch.Size(payload)


def _is_count(number: Json) -> bool:
    return type(number) is int and 0 <= number <= sys.maxsize

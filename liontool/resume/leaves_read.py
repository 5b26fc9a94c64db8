"""Leaves of a tagged tree as tensors, arrays and the like; every payload may be a stranger's."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.checkpoint.formats.safetensors_file import MAX_DIMENSIONS
from liontool.checkpoint.tagged_tree import Json, KeyPath, malformed, unknown
from liontool.checkpoint.unkept import dotted, refused
from liontool.resume.arrays import array_of, numpy_scalar
from liontool.resume.dtypes import DTYPES
from liontool.resume.live_functions import live_value, value_at
from liontool.resume.strides import is_dense

_BROKEN = (ValueError, TypeError, RuntimeError, OverflowError)
"""What torch and numpy raise when a file asks for what cannot be."""
_DEVICE = re.compile(r"[a-z]{1,20}(:\d{1,3})?")
_FIELDS = frozenset({"name", "stride", "dtype", "shape", "device", "requires_grad", "parameter"})


class ReadLeaves:
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
        live = value_at(self._live, path)
        if isinstance(live, Tensor):
            wanted = live.device
        try:
            return tensor.to(wanted)
        except (*_BROKEN, AssertionError):  # the device is not there
            return tensor

    def _live_value(self, payload: Json, path: KeyPath) -> object:
        return live_value(self._live, payload, path)


def _dtype(payload: Json, path: KeyPath) -> torch.dtype:
    if type(payload) is not str or payload not in DTYPES:
        raise malformed(path, "'dtype' must be the name of a dtype of this torch")
    return DTYPES[payload]


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

"""numpy's arrays and scalars in a tagged tree."""

from __future__ import annotations

import base64
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from liontool.checkpoint.tagged_tree import Json, KeyPath, malformed
from liontool.checkpoint.unkept import dotted, refused_kind

_PLAIN = frozenset({"bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
                    "uint64", "float16", "float32", "float64", "complex64"})  # fmt: skip
_DTYPE = re.compile(r"[<>|][biufcmMSU]\d{1,9}(\[\d{0,9}[A-Za-z]{1,2}\])?")
_BROKEN = (ValueError, TypeError, OverflowError)


def is_plain_array(array: NDArray[Any]) -> bool:
    """Whether a safetensors file knows the array's dtype."""
    return array.dtype.name in _PLAIN and array.dtype.isnative


def array_bytes(array: NDArray[Any], path: KeyPath) -> NDArray[np.uint8]:
    """The elements of any other array row by row.

    Raises:
        StateTypeError: They are objects, records or long doubles.
    """
    _check(array.dtype, path)
    return np.frombuffer(bytearray(array.tobytes()), np.uint8)


def array_of(data: NDArray[Any], dtype: Json, shape: Json, path: KeyPath) -> NDArray[Any]:
    """The array that `array_bytes` made `data` of."""
    made = _dtype(dtype, path)
    try:
        if not all(type(n) is int and n >= 0 for n in shape) or len(shape) > 64:
            raise ValueError
        return np.frombuffer(bytearray(data.tobytes()), made).reshape(shape)
    except _BROKEN:
        raise malformed(path, f"{len(data)} bytes are no array of {dotted((dtype,))}") from None


def numpy_node(value: np.generic, path: KeyPath) -> Json:
    """The node of a scalar."""
    if isinstance(value, np.str_):
        return {"$numpy": ["str", str(value)]}
    if isinstance(value, np.bytes_):
        return {"$numpy": ["bytes", base64.b64encode(bytes(value)).decode()]}
    _check(value.dtype, path)
    return {"$numpy": [value.dtype.str, value.tobytes().hex()]}


def numpy_scalar(payload: Json, path: KeyPath) -> np.generic:
    """The scalar of a node."""
    try:
        kind, text = payload
        if kind == "str" and type(text) is str:
            return np.str_(text)
        if kind == "bytes":
            return np.bytes_(base64.b64decode(text.encode(), validate=True))
        (scalar,) = np.frombuffer(bytes.fromhex(text), _dtype(kind, path))
        assert isinstance(scalar, np.generic)
        return scalar
    except (*_BROKEN, AttributeError, LookupError):
        raise malformed(path, "'$numpy' must be [dtype, hexadecimal digits]") from None


def _dtype(name: Json, path: KeyPath) -> np.dtype[Any]:
    try:
        if _DTYPE.fullmatch(name):
            made = np.dtype(name)
            if _is_kept(made):
                return made
    except _BROKEN:
        pass
    raise malformed(path, f"{dotted((name,))} is no dtype that liontool writes")


def _check(dtype: np.dtype[Any], path: KeyPath) -> None:
    if not _is_kept(dtype):
        raise refused_kind(
            path, f"numpy's {dtype}", "save it as numbers of up to 64 bits, or as lists"
        )


def _is_kept(dtype: np.dtype[Any]) -> bool:
    """Numbers of a known size, dates and text; no objects, no records, no long doubles."""
    largest = {"f": 8, "c": 16}.get(dtype.kind)
    known = dtype.kind in "biufcmMSU" and dtype.itemsize > 0
    return known and (largest is None or dtype.itemsize <= largest)

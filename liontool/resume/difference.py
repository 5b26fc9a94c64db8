"""Whether two states are the same, bit for bit."""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.checkpoint.unkept import dotted
from liontool.resume.strides import is_dense, same_layout

_Found = tuple[Any, ...]
_INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def difference(a: object, b: object) -> str | None:
    """The path of the first value that is not the same in both; None where all are.

    Types count, and dtypes, shapes, and the strides of tensors without gaps; the order of a dict
    counts only in an OrderedDict. A NaN is the same as a NaN of the same bits, 0.0 is not -0.0.
    Where a tensor lies does not count.
    """
    found = _first(a, b, ())
    return None if found is None else dotted(found)


def _first(a: Any, b: Any, path: _Found) -> _Found | None:
    if a is b and isinstance(a, (str, int, type(None))):
        return None
    if type(a) is not type(b):
        return path
    way = _WAYS.get(type(a))
    if way is None:
        return None if _is_same_leaf(a, b) else path
    return way(a, b, path)


def _in_pairs(pairs: Iterator[tuple[Any, Any, Any]], path: _Found) -> _Found | None:
    for key, one, other in pairs:
        found = _first(one, other, (*path, key))
        if found is not None:
            return found
    return None


def _dicts(a: Mapping[Any, Any], b: Mapping[Any, Any], path: _Found) -> _Found | None:
    return _marked_dicts(_marked(a), _marked(b), path)


def _marked_dicts(
    a: Mapping[Any, tuple[Any, Any]], b: Mapping[Any, tuple[Any, Any]], path: _Found
) -> _Found | None:
    for mark in (*a, *b):
        if mark not in a or mark not in b:
            key, _ = a.get(mark) or b[mark]
            return (*path, key)
    return _in_pairs(((key, item, b[mark][1]) for mark, (key, item) in a.items()), path)


def _ordered(a: OrderedDict[Any, Any], b: OrderedDict[Any, Any], path: _Found) -> _Found | None:
    one, other = _marked(a), _marked(b)
    found = _marked_dicts(one, other, path) or _dicts(vars(a), vars(b), path)
    moved = ((*path, one[mark][0]) for mark, its in zip(one, other, strict=False) if mark != its)
    return found or next(moved, None)


def _marked(items: Mapping[Any, Any]) -> dict[Any, tuple[Any, Any]]:
    """Keys and values by the marks of the keys; where two keys are NaN, their order tells them."""
    made: dict[Any, tuple[Any, Any]] = {}
    for key, item in items.items():
        mark = key if type(key) is str else _mark(key)
        while mark in made:
            mark = (mark,)
        made[mark] = (key, item)
    return made


def _mark(key: Any) -> Any:
    """What is equal for keys that are the same in type and bits, and for them only."""
    kind = type(key)
    if kind is str:
        return key
    if kind is float:
        return kind, repr(key)
    if kind is complex:
        return kind, repr(key.real), repr(key.imag)
    if kind is tuple or kind is torch.Size:
        return kind, *map(_mark, key)
    if kind is frozenset:
        return kind, frozenset(Counter(map(_mark, key)).items())
    if isinstance(key, np.generic):
        return kind, key.dtype.str, key.tobytes()
    return kind, key


def _defaultdicts(a: Any, b: Any, path: _Found) -> _Found | None:
    return path if a.default_factory is not b.default_factory else _dicts(a, b, path)


def _sequences(a: Any, b: Any, path: _Found) -> _Found | None:
    if len(a) != len(b):
        return path
    return _in_pairs(((i, *pair) for i, pair in enumerate(zip(a, b, strict=True))), path)


def _deques(a: Any, b: Any, path: _Found) -> _Found | None:
    return path if a.maxlen != b.maxlen else _sequences(a, b, path)


def _sets(a: Any, b: Any, path: _Found) -> _Found | None:
    return None if Counter(map(_mark, a)) == Counter(map(_mark, b)) else path


def _tensors(a: Tensor, b: Tensor, path: _Found) -> _Found | None:
    return None if _is_same_tensor(a, b) else path


def _is_same_tensor(a: Tensor, b: Tensor) -> bool:
    if a is b:
        return True
    if a.dtype != b.dtype or a.shape != b.shape or a.requires_grad != b.requires_grad:
        return False
    one, other = a.stride(), b.stride()
    if one != other and not same_layout(a.shape, one, other):
        if is_dense(a.shape, one) and is_dense(a.shape, other):
            return False
    elif a.data_ptr() == b.data_ptr() and a.device == b.device and a.is_conj() == b.is_conj():
        return a.is_neg() == b.is_neg()
    return torch.equal(_bits(a), _bits(b).to(a.device))


def _bits(tensor: Tensor) -> Tensor:
    plain = tensor.detach().resolve_conj().resolve_neg()
    if plain.is_complex():
        plain = torch.view_as_real(plain)
    return plain.view(_INTEGERS[plain.element_size()])


def _arrays(a: Any, b: Any, path: _Found) -> _Found | None:
    same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return None if same else path


def _floats(a: float, b: float, path: _Found) -> _Found | None:
    same = (a == b and math.copysign(1, a) == math.copysign(1, b)) or (a != a and b != b)
    return None if same else path


def _complexes(a: complex, b: complex, path: _Found) -> _Found | None:
    found = _floats(a.real, b.real, path)
    return _floats(a.imag, b.imag, path) if found is None else found


def _is_same_leaf(a: Any, b: Any) -> bool:
    if isinstance(a, np.generic):
        return bool(a.dtype == b.dtype) and a.tobytes() == b.tobytes()
    return bool(a == b)


_WAYS: Mapping[type, Callable[[Any, Any, _Found], _Found | None]] = {
    dict: _dicts, Counter: _dicts, OrderedDict: _ordered, defaultdict: _defaultdicts,
    list: _sequences, tuple: _sequences, torch.Size: _sequences, deque: _deques,
    set: _sets, frozenset: _sets, float: _floats, complex: _complexes,
    Tensor: _tensors, Parameter: _tensors, np.ndarray: _arrays,
}  # fmt: skip

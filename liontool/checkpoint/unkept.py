"""What to say of a value that no checkpoint can keep: its path, its type, and the way out."""

from __future__ import annotations

import collections
import enum
import io
import types
from collections.abc import Iterable, Mapping
from typing import Any

from liontool.errors import StateTypeError
from liontool.escape import safe

_LONGEST_KEY = 80
_STATES = {
    "state_dict": "state_dict()",
    "bit_generator": "bit_generator.state",
    "get_state": "get_state()",
    "getstate": "getstate()",
}
"""What gives the state of an object that has such an attribute."""
_NAMED = (types.FunctionType, types.BuiltinFunctionType, type)


def dotted(path: Iterable[object]) -> str:
    """A path for people: "optimizer.state.0.exp_avg"; "state" for the root."""
    return ".".join(map(_key, path)) or "state"


def _key(key: object) -> str:
    try:
        text = safe(key if isinstance(key, str) else repr(key))
    except ValueError:  # Python refuses to spell numbers of thousands of digits
        text = type(key).__name__
    return text if len(text) <= _LONGEST_KEY else f"{text[:_LONGEST_KEY]}..."


def refused(
    value: object,
    path: Iterable[object],
    *,
    hashed: bool = False,
    attributes: Mapping[str, object] | None = None,
) -> StateTypeError:
    """The error for a value of a type that is in no table.

    Args:
        value: What was found.
        path: Where it was found.
        hashed: It is a key, or in a set.
        attributes: What is set on it, where it is that which cannot be kept.
    """
    name = safe(type_name(value))
    if attributes is not None:
        kind = f"{name} with the attributes {safe(', '.join(attributes)):.200}"
        return _error(path, kind, "state_dict() must return it without them")
    place = " as a key or in a set" if hashed else ""
    return _error(path, f"{name}{place}", _advice(value))


def refused_kind(path: Iterable[object], kind: str, advice: str) -> StateTypeError:
    """The error for a value that is called `kind`, with the way out."""
    return _error(path, kind, advice)


def _error(path: Iterable[object], kind: str, advice: str) -> StateTypeError:
    return StateTypeError(f"{dotted(path)}: a checkpoint cannot keep {kind}; {advice}")


def type_name(value: object) -> str:
    """ "module.Class" of the value; a function by its own name."""
    named: Any = value if isinstance(value, _NAMED) else type(value)
    module, name = named.__module__, named.__qualname__
    return name if module in ("builtins", None) else f"{module}.{name}"


def _advice(value: object) -> str:
    if isinstance(value, _NAMED):
        return "give it a name at the top of a module, or leave it out of state_dict()"
    if isinstance(value, enum.Enum):
        return "save its .value"
    if isinstance(value, tuple) and hasattr(type(value), "_asdict"):
        return "save tuple(it), or its _asdict()"
    if isinstance(value, io.IOBase):
        return "save the position in the file, its tell(), and open it again when it is loaded"
    if isinstance(value, collections.defaultdict):
        return "its factory is not one of Python's own types: save dict(it)"
    for kind in (bool, int, float, complex, str, bytes, list, tuple, dict, set, frozenset):
        if isinstance(value, kind):
            return f"save {kind.__name__}(it), or its parts one by one"
    for attribute, found in _STATES.items():
        if hasattr(type(value), attribute):  # of the type: an instance may answer to anything
            return f"save its {found}"
    return "have state_dict() return numbers, text, lists, dicts and tensors in its place"

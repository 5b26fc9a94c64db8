"""Functions and classes in a state: the file has their names, the live run has themselves."""

from __future__ import annotations

import types
from collections import deque
from collections.abc import Mapping
from typing import Any

from liontool.checkpoint.tagged_tree import Json, KeyPath, malformed
from liontool.checkpoint.unkept import dotted, type_name
from liontool.errors import ResumeError
from liontool.escape import safe


def live_name(value: object) -> str | None:
    """ "module.name" of a function or a class that has a place at the top of a module."""
    if not isinstance(value, (types.FunctionType, types.BuiltinFunctionType, type)):
        return None
    module, name = value.__module__, value.__qualname__
    if not isinstance(module, str) or "<" in name:
        return None
    return f"{module}.{name}"


def live_value(live: Mapping[str, object], payload: Json, path: KeyPath) -> object:
    """What the live state has at the path of a name, if it is called so.

    Raises:
        FormatError: The name is none.
        ResumeError: It is called otherwise, or there is nothing.
    """
    if type(payload) is not str:
        raise malformed(path, "'$live' must be a name")
    found = value_at(live, path)
    name = live_name(found)
    if name != payload:
        there = "nothing" if found is None else safe(name or type_name(found))
        raise ResumeError(
            f"{dotted(path)}: the checkpoint was made with {dotted((payload,))} here, and the "
            f"run has {there} now; build the run with the same one"
        )
    return found


def value_at(value: Any, path: KeyPath) -> object:
    """What the live state has at a path; None where there is nothing."""
    for key in path:
        if not isinstance(value, (Mapping, list, tuple, deque)):
            return None
        try:
            value = value[key]
        except (LookupError, TypeError):
            return None
    return value

"""A value that a user gives, in the type that the checkpoint keeps it in."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from liontool.checkpoint import values
from liontool.checkpoint.document import TensorRef, Value, is_tuple
from liontool.checkpoint.plain_values import plain
from liontool.errors import EditError

_REAL = frozenset(
    {"lr", "weight_decay", "eps", "momentum", "dampening", "alpha", "lr_scale", "wd_scale"}
    | {"lr_mult", "wd_mult", "beta1", "beta2", "pow", "horizon", "reference_lr", "swa_lr"}
    | {"max_lr", "min_lr", "max_momentum", "base_momentum", "loss_scale_factor"}
)
"""Keys whose value may be a fraction even where it is a whole number now."""

_SHOWN = 60


def as_kept(old: Value, new: Any, name: str) -> Value:
    """`new` in the type of `old`: a switch stays a switch, a count a count, a tensor a tensor.

    Args:
        old: What the checkpoint has.
        new: None, a switch, a number, text, or a tuple of these.
        name: The key, for which a whole number may become a fraction, and for messages.

    Raises:
        EditError: It cannot be kept in that type.
    """
    if isinstance(old, TensorRef):
        return _tensor(old, new, name)
    if old is None:
        return new
    if isinstance(old, bool):
        return _switch(new, name)
    if isinstance(old, (int, float)):
        return _number(old, new, name)
    if isinstance(old, str):
        return _text(new, name)
    if isinstance(old, Sequence) and not isinstance(old, (bytes, bytearray)):
        return _several(old, new, name)
    raise EditError(f"{name} is {_shown(old)}, which no word can say")


def _switch(new: Any, name: str) -> bool | None:
    if new is None or isinstance(new, bool):
        return new
    if new in (0, 1):
        return bool(new)
    raise EditError(f"{name} is a switch, and takes true or false")


def _number(old: Any, new: Any, name: str) -> int | float:
    if not _is_number(new):
        raise EditError(f"{name} is a number, {_shown(old)}, and takes another one")
    if isinstance(old, float):
        return float(new)
    if float(new).is_integer():
        return int(new)
    if name in _REAL:
        return float(new)
    raise EditError(f"{name} is a whole number, {old}, and takes another one")


def _text(new: Any, name: str) -> str | None:
    if new is None or isinstance(new, str):
        return new
    raise EditError(f"{name} is text, and takes text")


def _several(old: Sequence[Value], new: Any, name: str) -> Value:
    if not isinstance(new, tuple) or len(new) != len(old):
        raise EditError(
            f"{name} is {len(old)} values, {_shown(old)}, and takes as many, with commas between"
        )
    items = [as_kept(a, b, name) for a, b in zip(old, new, strict=True)]
    return tuple(items) if is_tuple(old) else items


def _tensor(old: TensorRef, new: Any, name: str) -> TensorRef:
    if old.numel != 1:
        raise EditError(f"{name} is {_shown(old)}, which no word can say")
    if values.is_float(old.dtype):
        if not _is_number(new):
            raise EditError(f"{name} is a number, {_shown(old)}, and takes another one")
        number: int | float | bool = float(new)
    elif old.dtype == "bool":
        number = bool(_switch(new, name))
    else:
        number = _number(int(values.scalar(old)), new, name)
        if not isinstance(number, int):
            raise EditError(f"{name} is a whole number, {_shown(old)}, and takes another one")
    return values.from_scalars(old.dtype, [number], old.shape)


def _is_number(new: Any) -> bool:
    return isinstance(new, (int, float)) and not isinstance(new, bool) and isfinite(new)


def _shown(value: Value) -> str:
    return f"{plain(value)!r:.{_SHOWN}}"

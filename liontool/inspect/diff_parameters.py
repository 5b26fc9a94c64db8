"""Which parameters of two optimizers belong together: by name, or by position where names lack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from liontool.checkpoint.model import Optimizer
from liontool.inspect.diff_names import Renames, paired_names

_Key = int | str


@dataclass(frozen=True)
class Partners:
    """The parameters of two optimizers that belong together.

    Attributes:
        keys: The key in B for each key in A that has one.
        by_position: Whether a side knows no names, so that positions had to do.
        moved: Names of the parameters that stand at another place among those of B.
        notes: How they were matched, where that is not plain.
    """

    keys: Mapping[_Key, _Key]
    by_position: bool = False
    moved: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def partners(a: Optimizer, b: Optimizer, renames: Renames | None = None) -> Partners:
    """Match the parameters of two optimizers, those without state too.

    Args:
        a: The one before.
        b: The one after.
        renames: What the user says of names; counted as used where it fits.
    """
    keys_a, keys_b = _keys(a), _keys(b)
    names_a, names_b = _names(a, keys_a), _names(b, keys_b)
    if names_a is None or names_b is None:
        notes = _position_note(names_a is not None, names_b is not None)
        return Partners(dict(zip(keys_a, keys_b, strict=False)), True, notes=notes)
    found = paired_names(tuple(names_a), tuple(names_b), renames or Renames())
    keys = {names_a[old]: names_b[new] for old, new in found.pairs.items()}
    return Partners(keys, False, _moved(found.pairs, names_b), found.notes)


def _keys(optimizer: Optimizer) -> tuple[_Key, ...]:
    """The keys of all parameters in the order in which torch counts them."""
    listed = dict.fromkeys(key for group in optimizer.groups for key in group.params)
    return tuple(listed | dict.fromkeys(optimizer.slots))


def _names(optimizer: Optimizer, keys: Sequence[_Key]) -> dict[str, _Key] | None:
    """The key of each name, in the order of `keys`; None unless each parameter has its own."""
    known: dict[_Key, str | None] = {
        key: name
        for group in optimizer.groups
        for key, name in zip(group.params, group.names, strict=False)
    }
    slots = optimizer.slots
    named = {known.get(key) or (slots[key].name if key in slots else None): key for key in keys}
    found = {name: key for name, key in named.items() if name is not None}
    return found if len(found) == len(keys) else None


def _position_note(a_named: bool, b_named: bool) -> tuple[str, ...]:
    if a_named == b_named:
        return ()
    side = "B" if a_named else "A"
    return (f"state was matched by position: {side} does not tell the names of its parameters",)


def _moved(pairs: Mapping[str, str], names_b: Mapping[str, _Key]) -> tuple[str, ...]:
    """Those whose place among the common ones differs; `pairs` is in the order of A."""
    matched = set(pairs.values())
    in_b = [name for name in names_b if name in matched]
    return tuple(old for (old, new), other in zip(pairs.items(), in_b, strict=True) if new != other)

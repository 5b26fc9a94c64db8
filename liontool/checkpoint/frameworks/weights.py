"""Which tensors of a file are the weights of which parameters, by name."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import TensorRef, Value


def weights_by_name(
    names: Sequence[str], candidates: Iterable[Mapping[Any, Value]]
) -> dict[str, TensorRef]:
    """The weights of each of `names`, from the first candidate that has all of them.

    The model may have been wrapped when it was saved: one prefix before every name is fine
    (`module.`, `_orig_mod.`, `model.`).

    Returns:
        A tensor for each name, or nothing where no candidate has all of them.
    """
    for weights in candidates if names else ():
        for prefix in _prefixes(names[0], weights):
            found = {name: weights.get(prefix + name) for name in names}
            if all(isinstance(tensor, TensorRef) for tensor in found.values()):
                return {k: v for k, v in found.items() if isinstance(v, TensorRef)}
    return {}


def _prefixes(name: str, weights: Mapping[Any, Value]) -> list[str]:
    """What stands before `name` in the keys that end with it, shortest first."""
    keys = (key for key in weights if isinstance(key, str) and key.endswith(name))
    prefixes = (key.removesuffix(name) for key in keys)
    return sorted((p for p in prefixes if not p or p.endswith(".")), key=len)

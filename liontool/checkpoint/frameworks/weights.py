"""Which tensors of a file are the weights of which parameters, by name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import TensorRef, Value

Weights = dict[str, TensorRef]


def weights_by_name(
    names: Sequence[str], candidates: Iterable[Mapping[Any, Value]]
) -> dict[str, TensorRef]:
    """The weights of each of `names`, from the first candidate that has all of them.

    The model may have been wrapped when it was saved: one prefix before every name is fine
    (`module.`, `_orig_mod.`, `model.`). But names that are relative to a part of the model may fit
    other parts too, and of several models in a file nothing tells whose names they are: weights
    of different shapes under the same names are no answer.

    Returns:
        A tensor for each name; nothing where no candidate has all of them, or several have and do
        not agree, or where a name stands for two parameters.
    """
    if len(set(names)) != len(names):
        return {}
    fitting = (found for weights in candidates if names for found in _fitting(names, weights))
    first = next(fitting, {})
    shapes = _shapes(first)
    return first if all(_shapes(other) == shapes for other in fitting) else {}


def _fitting(names: Sequence[str], weights: Mapping[Any, Value]) -> Iterator[Weights]:
    """The weights of all names, for each prefix under which there are all."""
    for prefix in _prefixes(names[0], weights):
        found: Weights = {}
        for name in names:
            tensor = weights.get(prefix + name)
            if not isinstance(tensor, TensorRef):
                break
            found[name] = tensor
        else:
            yield found


def _shapes(weights: Weights) -> list[tuple[int, ...]]:
    return [tensor.shape for tensor in weights.values()]


def _prefixes(name: str, weights: Mapping[Any, Value]) -> list[str]:
    """What stands before `name` in the keys that end with it, shortest first."""
    keys = (key for key in weights if isinstance(key, str) and key.endswith(name))
    prefixes = (key.removesuffix(name) for key in keys)
    return sorted((p for p in prefixes if not p or p.endswith(".")), key=len)

"""State dicts as trees: containers are walked and copied, tensors are shared."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from torch import Tensor


def copied(tree: Any) -> Any:
    """The same tree in dicts and lists of its own, with the same tensors."""
    return mapped(tree, lambda tensor: tensor)


def mapped(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """The same tree with `change` made to every tensor; other containers are left as they are."""
    if isinstance(tree, Tensor):
        return change(tree)
    kind = type(tree)
    if kind is dict or kind is OrderedDict:
        made = kind((key, mapped(item, change)) for key, item in tree.items())
        made.__dict__.update(vars(tree)) if kind is OrderedDict else None
        return made
    if kind is list or kind is tuple:
        return kind(mapped(item, change) for item in tree)
    return tree

"""The state of a run as a tagged tree and tensors by name, and back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from liontool.checkpoint import tagged_tree
from liontool.checkpoint.tagged_tree import Json
from liontool.errors import FormatError
from liontool.resume.leaves_read import ReadLeaves
from liontool.resume.leaves_written import WrittenLeaves


@dataclass(frozen=True)
class Encoded:
    """A state in two parts.

    Attributes:
        tree: For `json.dumps(tree, allow_nan=False)`.
        tensors: Detached, on any device, not copied unless a copy alone has plain bytes.
    """

    tree: Json
    tensors: dict[str, Tensor]


def encode_state(state: Mapping[str, object]) -> Encoded:
    """The state of a run, ready to be written.

    Raises:
        StateTypeError: There is something that no checkpoint can keep; names its path.
    """
    leaves = WrittenLeaves()
    tree = tagged_tree.encode(dict(state), leaves)
    return Encoded(tree, leaves.tensors)


def decode_state(
    tree: Json,
    tensor: Callable[[str], Tensor],
    live: Mapping[str, object],
    where: str = "",
) -> dict[str, Any]:
    """The state that `encode_state` made `tree` of.

    Args:
        tree: Any JSON.
        tensor: The tensor of a name; LookupError where there is none.
        live: The state of the run that goes on: functions and classes are taken from it.
        where: The file, for messages.

    Raises:
        FormatError: It is no state; names the path.
        ResumeError: The live run has not the function or class that the state had.
    """
    state = tagged_tree.decode(tree, ReadLeaves(tensor, live), where)
    if type(state) is not dict or not all(type(key) is str for key in state):
        raise FormatError(f"{where or 'the tree'}: holds no state of a run, which is an object")
    return state

"""A state through JSON text and back, as a save and a resume do it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from liontool.resume.encoding import decode_state, encode_state


def there_and_back(
    state: Mapping[str, object], live: Mapping[str, object] | None = None
) -> dict[str, Any]:
    """The state, in memory of its own, with functions from `live` or else from itself."""
    encoded = encode_state(state)
    tree = json.loads(json.dumps(encoded.tree, allow_nan=False))
    tensors = {name: _row_by_row(tensor) for name, tensor in encoded.tensors.items()}
    return decode_state(tree, tensors.__getitem__, state if live is None else live)


def part_there_and_back(state: object, live: object = None) -> Any:
    """The same for one part."""
    return there_and_back({"part": state}, None if live is None else {"part": live})["part"]


def _row_by_row(tensor: Tensor) -> Tensor:
    """As it comes out of a file."""
    return tensor.cpu().clone(memory_format=torch.contiguous_format)

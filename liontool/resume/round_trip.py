"""State is encoded and decoded once before it is relied on."""

from __future__ import annotations

from collections.abc import Mapping

from liontool.errors import StateTypeError
from liontool.resume.difference import difference
from liontool.resume.encoding import Encoded, decode_state, encode_state


def encoded(state: Mapping[str, object]) -> Encoded:
    """A state, encoded, after what it decodes to was compared with it.

    Raises:
        StateTypeError: Something cannot be kept, or would not come back as it was; names its path.
    """
    made = encode_state(state)
    path = difference(dict(state), decode_state(made.tree, made.tensors.__getitem__, state))
    if path is not None:
        raise StateTypeError(
            f"{path}: would not come back from a checkpoint as it is; keep it in another form"
        )
    return made

"""Pickle bytes to nodes, by a closed interpreter: nothing that they name is imported or called.

Protocols 0 to 5, less what only a running program could answer: the extension registry and
out-of-band buffers. The stack holds nodes; a mark sets the stack aside and begins a new one.
"""

from __future__ import annotations

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_machine import Machine, PickleLimits
from liontool.checkpoint.formats.pickle_nodes import Node
from liontool.checkpoint.formats.pickle_readers import READERS
from liontool.errors import LimitError

__all__ = ["PickleLimits", "parse", "protocol_of"]


def parse(data: bytes | memoryview, *, where: str) -> tuple[Node, int]:
    """Read one pickle from the start of `data`.

    Args:
        data: The bytes; more may follow the pickle.
        where: What to call them in messages: "adamw.pt: data.pkl".

    Returns:
        The root node, and how many bytes the pickle takes.

    Raises:
        FormatError: The bytes are no pickle, or one that needs a running program.
        LimitError: The pickle claims more than `PickleLimits`.
    """
    if len(data) > PickleLimits.BYTES:
        raise LimitError(
            f"{where}: pickle of {len(data)} bytes; at most {PickleLimits.BYTES} are read"
        )
    machine = Machine(bytes(data), where)
    return machine.run(READERS), machine.position


def protocol_of(data: bytes | memoryview) -> int:
    """The protocol to write this pickle in again; 1 where it does not say (0 and 1 do not)."""
    return data[1] if len(data) > 1 and data[0] == op.PROTO and data[1] <= 5 else 1

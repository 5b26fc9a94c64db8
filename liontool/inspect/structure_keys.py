"""Keys that are set twice in one mapping of a pickle: Python keeps the last value."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_content import entries, is_mapping
from liontool.checkpoint.formats.pickle_nodes import Atom, Composite, Node, resolve, walk
from liontool.inspect.findings import Finding
from liontool.inspect.places import short

_KEY_BITS = 64


def repeated_keys(root: Node, where: str) -> Iterator[Finding]:
    """A finding for each key that some mapping below `root` has more than once.

    Args:
        root: From `parse`.
        where: The pickle.
    """
    told: set[object] = set()
    for node in walk(root):
        seen: set[object] = set()
        for key in _keys(node):
            if key in seen and key not in told:
                told.add(key)
                text = f"{short(repr(key))} stands twice in one mapping; loaders take the last"
                yield Finding("duplicate-key", where, text)
            seen.add(key)


def _keys(node: Node) -> Iterator[object]:
    """The plain keys of a mapping; those of an object that is filled like one too."""
    if not isinstance(node, Composite):
        return
    found: Iterator[object] = iter(())
    if is_mapping(node):
        found = (slot.key for slot in entries(node))
    elif node.changes:
        changes = (c for c in node.changes if c.op in (op.SETITEM, op.SETITEMS))
        found = (part for change in changes for part in change.items[::2])
    for part in found:
        key = resolve(part) if isinstance(part, Node) else None
        if isinstance(key, Atom) and _is_plain(key.value):
            yield key.value


def _is_plain(value: object) -> bool:
    """Hashes of huge integers can be made to collide."""
    return not isinstance(value, int) or value.bit_length() <= _KEY_BITS

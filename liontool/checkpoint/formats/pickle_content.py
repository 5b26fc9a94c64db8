"""What the nodes of containers hold: entries of mappings, items of sequences, and where they stand.

Mappings and sequences come in many spellings: opcodes of their own, or a call of a known class
with items among its arguments or in later changes. Classes are names; nothing is imported.

No answer may cost more than the bytes that it is about. So arguments count as contents of a call
only if they stand in it: were a Ref enough, a thousand calls could each claim the same huge list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeAlias

from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_nodes import (
    Call,
    Change,
    Composite,
    Dict,
    FrozenSet,
    Global,
    List,
    Node,
    Ref,
    Set,
    Tuple,
    resolve,
)

Holder: TypeAlias = Composite | Change


class Slot(NamedTuple):
    """Where a value stands.

    Attributes:
        key: The node of its key; None in sequences.
        value: The node of the value.
        owner: The node that is changed if the value is.
        holder: The owner itself or one of its changes: what has the value among its items.
        position: Position of the value in the holder's items; its key stands before it.
    """

    key: Node | None
    value: Node
    owner: Composite
    holder: Holder
    position: int


_MAPPING_KINDS = frozenset({"OrderedDict", "defaultdict", "Counter"})
MAPPINGS = frozenset(f"collections.{kind}" for kind in _MAPPING_KINDS)
_BUILTINS = ("builtins", "__builtin__")
SEQUENCES = {
    "collections.deque": "deque",
    "torch.Size": "torch.Size",
    **{f"{module}.{name}": name for module in _BUILTINS for name in ("set", "frozenset", "list")},
}
"""Kind of each class whose calls are sequences."""


MAX_ARGUMENTS = 16
"""Calls with more are of no class that is known here."""


def class_of(call: Composite) -> str:
    """The full name of what a call makes, "(computed)" if it is not made by name."""
    name = resolve(call.items[0])
    if not isinstance(name, Global):
        return _COMPUTED
    if name.name == "_reconstructor" and name.module in ("copyreg", "copy_reg"):
        arguments = arguments_of(call)
        made = resolve(arguments[0]) if arguments else None
        return made.full_name if isinstance(made, Global) else _COMPUTED
    return name.full_name


_COMPUTED = "(computed)"


def arguments_of(call: Composite) -> Sequence[Node]:
    """The arguments of a call as they stand, () if there are too many to be of interest."""
    arguments: Sequence[Node] = ()
    if call.op in (op.OBJ, op.INST):
        arguments = call.items[1:] if len(call.items) <= MAX_ARGUMENTS else ()
    else:
        given = resolve(call.items[1])
        arguments = given.items if isinstance(given, Tuple) else ()
    return arguments if len(arguments) <= MAX_ARGUMENTS else ()


def kind_of(node: Node) -> str:
    """The kind of a mapping or sequence ("dict", "list", "OrderedDict"), "" for anything else."""
    if isinstance(node, Call):
        name = class_of(node)
        kind = name.rpartition(".")[2] if name in MAPPINGS else SEQUENCES.get(name, "")
        return kind if kind and _holds_its_own(node) else ""
    return _KINDS.get(type(node), "")


_KINDS: dict[type[Node], str] = {
    Dict: "dict", List: "list", Tuple: "tuple", Set: "set", FrozenSet: "frozenset",
}  # fmt: skip


def _holds_its_own(call: Call) -> bool:
    """Whether whatever containers a call is given stand in it, and nowhere else."""
    arguments = arguments_of(call)
    if call.op not in (op.OBJ, op.INST) and type(call.items[1]) is Ref and arguments:
        return False
    return not any(type(a) is Ref and isinstance(a.target, _CONTAINERS) for a in arguments)


_CONTAINERS = (Dict, List, Tuple, Set, FrozenSet)


def is_mapping(node: Node) -> bool:
    """Whether the node is a dict or a call of a dict class known by name."""
    return isinstance(node, Dict) or kind_of(node) in _MAPPING_KINDS


def entries(node: Composite) -> Iterator[Slot]:
    """The entries of a mapping in the order they are set; a key may be set again."""
    if isinstance(node, Call):
        for argument in arguments_of(node):
            if isinstance(argument, Dict):
                yield from entries(argument)
            elif isinstance(argument, (List, Tuple)):
                yield from _pairs(argument)
    for holder in _holders(node, op.SETITEM, op.SETITEMS):
        for index in range(1, len(holder.items), 2):
            key, value = holder.items[index - 1], holder.items[index]
            if isinstance(key, Node) and isinstance(value, Node):
                yield Slot(key, value, node, holder, index)


def _pairs(pairs: Composite) -> Iterator[Slot]:
    """Entries as Python 2 spells them: OrderedDict([[key, value], ...])."""
    for outer in items(pairs):
        pair = outer.value
        inner = list(islice(items(pair), 3)) if isinstance(pair, (List, Tuple)) else []
        if len(inner) == 2:
            yield inner[1]._replace(key=inner[0].value)


def items(node: Composite) -> Iterator[Slot]:
    """The items of a sequence or set in order."""
    if isinstance(node, Call):
        first = next(iter(arguments_of(node)), None)
        if isinstance(first, (List, Tuple, Set, FrozenSet)):
            yield from items(first)
    for holder in _holders(node, op.APPEND, op.APPENDS, op.ADDITEMS):
        for index, value in enumerate(holder.items):
            if isinstance(value, Node):
                yield Slot(None, value, node, holder, index)


def _holders(node: Composite, *codes: int) -> list[Holder]:
    """What has a container's contents among its items: the node itself, and its changes."""
    own: list[Holder] = [] if isinstance(node, Call) else [node]
    return [*own, *_changes(node, *codes)]


def state_of(node: Node) -> Node | None:
    """What BUILD sets on an object, the last one if there are several."""
    states = [change.items[0] for change in _changes(node, op.BUILD)]
    return resolve(states[-1]) if states and isinstance(states[-1], Node) else None


def _changes(node: Node, *codes: int) -> list[Change]:
    return [change for change in node.changes or () if change.op in codes]

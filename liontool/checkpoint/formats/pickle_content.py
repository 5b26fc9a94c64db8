"""What the nodes of containers hold: entries of mappings and items of sequences, and where each one stands.

Mappings and sequences come in many spellings: opcodes of their own, or a call of a known class with
items among its arguments or in later changes. Nothing here is imported or called; classes are names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Union

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
    Set,
    Tuple,
    resolve,
)

Holder = Union[Composite, Change]


class Slot(NamedTuple):
    """Where a value stands.

    Attributes:
        key: The node of its key; None in sequences.
        value: The node of the value.
        owner: The node that is changed if the value is.
        holder: The owner itself or one of its changes: what has the value among its items.
        index: Position of the value in the holder's items; its key stands before it.
    """

    key: Node | None
    value: Node
    owner: Composite
    holder: Holder
    index: int


MAPPINGS = frozenset({"collections.OrderedDict", "collections.defaultdict", "collections.Counter"})
_BUILTINS = ("builtins", "__builtin__")
SEQUENCES = {
    "collections.deque": "deque",
    "torch.Size": "torch.Size",
    **{f"{module}.{name}": name for module in _BUILTINS for name in ("set", "frozenset", "list")},
}
"""Kind of each class whose calls are sequences."""


def class_of(call: Composite) -> str:
    """The full name of what a call makes, "" if it is not made by name."""
    name = resolve(call.items[0])
    if not isinstance(name, Global):
        return ""
    if name.name == "_reconstructor" and name.module in ("copyreg", "copy_reg"):
        arguments = arguments_of(call)
        made = resolve(arguments[0]) if arguments else None
        return made.full_name if isinstance(made, Global) else ""
    return name.full_name


def arguments_of(call: Composite) -> Sequence[Node]:
    """The arguments of a call, Refs resolved."""
    if call.op in (op.OBJ, op.INST):
        return [resolve(item) for item in call.items[1:]]
    arguments = resolve(call.items[1])
    return [resolve(item) for item in arguments.items] if isinstance(arguments, Tuple) else []


def kind_of(node: Node) -> str:
    """"dict", "list", "tuple", "set", ... for mappings and sequences, "" for anything else."""
    if isinstance(node, Call):
        name = class_of(node)
        return name.rpartition(".")[2] if name in MAPPINGS else SEQUENCES.get(name, "")
    return _KINDS.get(type(node), "")


_KINDS: dict[type[Node], str] = {
    Dict: "dict", List: "list", Tuple: "tuple", Set: "set", FrozenSet: "frozenset",
}  # fmt: skip


def is_mapping(node: Node) -> bool:
    """Whether the node is a dict or a call of a dict class known by name."""
    return isinstance(node, Dict) or (isinstance(node, Call) and class_of(node) in MAPPINGS)


def entries(node: Composite) -> Iterator[Slot]:
    """The entries of a mapping in the order they are set; a later one may set the same key again."""
    if isinstance(node, Call):
        for argument in arguments_of(node):
            if isinstance(argument, Dict):
                yield from entries(argument)
            elif isinstance(argument, (List, Tuple)):
                yield from _pairs(argument)
    for holder in (node, *_changes(node, op.SETITEM, op.SETITEMS)):
        if isinstance(holder, Call):
            continue
        for index in range(1, len(holder.items), 2):
            key, value = holder.items[index - 1], holder.items[index]
            if isinstance(key, Node) and isinstance(value, Node):
                yield Slot(key, value, node, holder, index)


def _pairs(pairs: Composite) -> Iterator[Slot]:
    """Entries as Python 2 spells them: OrderedDict([[key, value], ...])."""
    for outer in items(pairs):
        pair = resolve(outer.value)
        inner = list(items(pair)) if isinstance(pair, (List, Tuple)) else []
        if len(inner) == 2:
            yield inner[1]._replace(key=inner[0].value)


def items(node: Composite) -> Iterator[Slot]:
    """The items of a sequence or set in order."""
    if isinstance(node, Call):
        first = next(iter(arguments_of(node)), None)
        if isinstance(first, (List, Tuple, Set, FrozenSet)):
            yield from items(first)
    for holder in (node, *_changes(node, op.APPEND, op.APPENDS, op.ADDITEMS)):
        if isinstance(holder, Call):
            continue
        for index, value in enumerate(holder.items):
            if isinstance(value, Node):
                yield Slot(None, value, node, holder, index)


def state_of(node: Node) -> Node | None:
    """What BUILD sets on an object, the last one if there are several."""
    states = [change.items[0] for change in _changes(node, op.BUILD)]
    return resolve(states[-1]) if states and isinstance(states[-1], Node) else None


def _changes(node: Node, *codes: int) -> list[Change]:
    return [change for change in node.changes or () if change.op in codes]

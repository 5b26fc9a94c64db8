"""Plain values to nodes, as torch.save spells them (protocol 2, what `weights_only` reads)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from liontool.checkpoint.document import Storage, Stored, TensorRef, Value
from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Change,
    Dict,
    Global,
    List,
    Node,
    PersistentId,
    Tuple,
)
from liontool.checkpoint.formats.pickle_tensors import TYPED_STORAGES, UNTYPED
from liontool.errors import LayoutError

NewStorage = Callable[[TensorRef], tuple[Any, ...]]
"""Finds room for a tensor in the file and gives its persistent id (see `storage_id`)."""

_MAX_DEPTH = 100
_CLASSES = {dtype: name for name, dtype in TYPED_STORAGES.items()}


def encode(value: Value, new_storage: NewStorage | None = None) -> Node:
    """The nodes of a plain value.

    It may hold None, bool, int, float, str, bytes, mappings, sequences and TensorRefs. Mappings
    become dicts; sequences become lists, or tuples if they are or were tuples. What stands in two
    places of `value` is one object in the pickle.

    Raises:
        LayoutError: There is something in it that has no spelling here, such as an Opaque.
    """
    return Encoder(new_storage).node(value)


def storage_id(tensor: TensorRef, key: str) -> tuple[Any, ...]:
    """The persistent id of a storage that holds just `tensor`, as zip files spell it."""
    name = _CLASSES.get(tensor.dtype)
    if name is None:
        return ("storage", Global("torch.storage", UNTYPED), key, "cpu", tensor.nbytes)
    return ("storage", Global("torch", name), key, "cpu", tensor.numel)


def _nowhere(_: Any) -> None:
    return None


class Encoder:
    """Makes nodes of values, one for each object.

    Args:
        new_storage: Finds room for tensors that are not in the file.
        node_of: The node of a view, if there is one already.
        storage_node: The persistent id of a storage, if the file has it.
    """

    def __init__(
        self,
        new_storage: NewStorage | None,
        node_of: Callable[[Value], Node | None] = _nowhere,
        storage_node: Callable[[Storage], PersistentId | None] = _nowhere,
    ) -> None:
        self._new_storage = new_storage
        self._node_of = node_of
        self._storage_node = storage_node
        self._made: dict[
            int, tuple[Value, Node]
        ] = {}  # with the value, so that its id stays its own
        self._names: dict[tuple[str, ...], Node] = {}

    def node(self, value: Value, depth: int = 0) -> Node:
        """The node of a value."""
        if isinstance(value, Node):
            return self._global(value) if isinstance(value, Global) else value
        if value is None or isinstance(value, (bool, int, float)):
            return _number(value)
        if isinstance(value, str):
            return self._text(str(value))
        known = self._node_of(value)
        if known is not None:
            return known
        if id(value) not in self._made:
            self._container(value, depth)
        return self._made[id(value)][1]

    def _container(self, value: Value, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise LayoutError(f"values nested deeper than {_MAX_DEPTH} cannot be written")
        if isinstance(value, TensorRef):
            self._made[id(value)] = (value, self._tensor(value))
        elif isinstance(value, (bytes, bytearray)):
            self._made[id(value)] = (value, self._bytes(bytes(value)))
        elif isinstance(value, Mapping):
            self._dict(value, depth)
        elif isinstance(value, Sequence):
            self._sequence(value, depth)
        else:
            what = getattr(value, "name", None) or type(value).__name__
            raise LayoutError(f"{what!a} cannot be written into another file")

    def _dict(self, value: Mapping[Any, Value], depth: int) -> None:
        node = Dict(op.EMPTY_DICT)
        node.memoized = True
        self._made[id(value)] = (value, node)
        pairs = [self.node(part, depth + 1) for item in value.items() for part in item]
        if pairs:
            node.changes = [Change(op.SETITEMS, pairs)]

    def _sequence(self, value: Sequence[Value], depth: int) -> None:
        if getattr(value, "kind", "tuple" if isinstance(value, tuple) else "") in _TUPLES:
            nodes = [self.node(item, depth + 1) for item in value]
            self._made[id(value)] = (value, _tuple(*nodes))
            return
        node = List(op.EMPTY_LIST)
        node.memoized = True
        self._made[id(value)] = (value, node)
        nodes = [self.node(item, depth + 1) for item in value]
        if nodes:
            node.changes = [Change(op.APPENDS, nodes)]

    def _tensor(self, tensor: TensorRef) -> Node:
        source = tensor.source
        pid = self._storage_node(source.storage) if isinstance(source, Stored) else None
        if pid is not None and isinstance(source, Stored):
            offset, stride = source.offset, source.stride
        else:
            offset, stride = 0, _row_major(tensor.shape)
            pid = self._room_for(tensor)
        hooks = self._call("collections", "OrderedDict")
        sizes = [_number(offset), _numbers(tensor.shape), _numbers(stride)]
        parts = [pid, *sizes, _number(False), hooks]
        if tensor.dtype in _CLASSES:
            return self._call("torch._utils", "_rebuild_tensor_v2", *parts)
        dtype = self._global(Global("torch", tensor.dtype))
        return self._call("torch._utils", "_rebuild_tensor_v3", *parts, dtype)

    def _room_for(self, tensor: TensorRef) -> PersistentId:
        if self._new_storage is None:
            raise LayoutError(f"tensor '{tensor.label}' is not in this file, which cannot take it")
        values = [self.node(part) for part in self._new_storage(tensor)]
        return PersistentId(op.BINPERSID, (_tuple(*values),))

    def _bytes(self, value: bytes) -> Node:
        """As Python writes them in protocol 2, which has no opcode for bytes."""
        text = self._text(value.decode("latin-1"))
        return self._call("_codecs", "encode", text, self._text("latin1"))

    def _call(self, module: str, name: str, *arguments: Node) -> Node:
        return Call(op.REDUCE, (self._global(Global(module, name)), _tuple(*arguments)))

    def _global(self, node: Global) -> Node:
        return self._once((node.module, node.name), node)

    def _text(self, value: str) -> Node:
        return self._once((value,), Atom(op.BINUNICODE, value))

    def _once(self, name: tuple[str, ...], node: Node) -> Node:
        """One node, in the memo, for each name and text."""
        if name not in self._names:
            self._names[name] = node
            node.memoized = True
        return self._names[name]


_TUPLES = ("tuple", "torch.Size")


def _number(value: bool | int | float | None) -> Atom:
    if value is None:
        return Atom(op.NONE, None)
    if isinstance(value, bool):
        return Atom(op.NEWTRUE if value else op.NEWFALSE, value)
    if isinstance(value, float):
        return Atom(op.BINFLOAT, float(value))
    if 0 <= value < 1 << 16:
        return Atom(op.BININT1 if value < 1 << 8 else op.BININT2, int(value))
    if -1 << 31 <= value < 1 << 31:
        return Atom(op.BININT, int(value))
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(data) < 1 << 8:
        return Atom(op.LONG1, value, bytes((op.LONG1, len(data))) + data)
    raise LayoutError(f"an integer of {len(data)} bytes cannot be written")


def _numbers(values: tuple[int, ...]) -> Tuple:
    return _tuple(*map(_number, values))


def _tuple(*nodes: Node) -> Tuple:
    code = _TUPLE_CODES[len(nodes)] if len(nodes) < len(_TUPLE_CODES) else op.TUPLE
    return Tuple(code, nodes)


_TUPLE_CODES = (op.EMPTY_TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3)


def _row_major(shape: tuple[int, ...]) -> tuple[int, ...]:
    stride = [1]
    for size in reversed(shape[1:]):
        stride.append(stride[-1] * max(size, 1))
    return tuple(reversed(stride[: len(shape)]))

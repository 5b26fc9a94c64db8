"""The nodes of a pickle as plain values: read-only views that are made when somebody looks.

The same node is always the same view, so `is` tells aliases from equals. Views compare and hash by
identity: equality of graphs that may contain themselves has no good answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, overload

from liontool.checkpoint.document import Edit, Key, Opaque, Storage, Stored, TensorRef, Value
from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_content import (
    class_of,
    entries,
    is_mapping,
    items,
    kind_of,
    state_of,
)
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Composite,
    Global,
    Node,
    PersistentId,
    resolve,
    walk,
)
from liontool.checkpoint.formats.pickle_tensors import (
    bytes_of,
    numpy_scalar,
    persistent_values,
    storage_in,
    tensor,
)

if TYPE_CHECKING:  # what only edits need is not loaded for reading
    from liontool.checkpoint.formats.pickle_encode import NewStorage

__all__ = ["MappingView", "SequenceView", "Tree", "collect_storages"]

Path: TypeAlias = tuple[Key, ...]

_KEY_BITS = 64
_LABEL = 300


class MappingView(Mapping[Any, Value]):
    """A dict or one of its kin, to read.

    Attributes:
        kind: "dict", "OrderedDict", "defaultdict" or "Counter".
    """

    __slots__ = ("_nodes", "_path", "_tree", "kind")

    def __init__(self, tree: Tree, node: Composite, path: Path) -> None:
        self.kind = kind_of(node)
        self._tree = tree
        self._path = path
        self._nodes: dict[Any, Node] = {}
        for slot in entries(node):
            if slot.key is not None:
                self._nodes[tree.key(slot.key)] = slot.value

    def __getitem__(self, key: Any) -> Value:
        return self._tree.view(self._nodes[key], (*self._path, key))

    def __iter__(self) -> Iterator[Any]:
        return iter(self._nodes)

    def __len__(self) -> int:
        return len(self._nodes)

    def __contains__(self, key: object) -> bool:
        return key in self._nodes

    __eq__ = object.__eq__
    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self)}>"


class SequenceView(Sequence[Value]):
    """A list, a tuple or one of their kin, to read. Sets are sequences in the order of the file.

    Attributes:
        kind: "list", "tuple", "deque", "torch.Size", "set" or "frozenset".
    """

    __slots__ = ("_nodes", "_path", "_tree", "kind")

    def __init__(self, tree: Tree, nodes: Sequence[Node], path: Path, kind: str) -> None:
        self.kind = kind
        self._tree = tree
        self._path = path
        self._nodes = nodes

    @overload
    def __getitem__(self, index: int) -> Value: ...
    @overload
    def __getitem__(self, index: slice) -> list[Value]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        position = index if index >= 0 else index + len(self)
        return self._tree.view(self._nodes[index], (*self._path, position))

    def __len__(self) -> int:
        return len(self._nodes)

    def __repr__(self) -> str:
        return f"<{self.kind} of {len(self)}>"


class _OpaqueView(Opaque):
    """An Opaque that looks at its state only when asked: states may contain themselves."""

    _read_state: Callable[[], Value]

    def __init__(
        self, name: str, arguments: Sequence[Value], read_state: Callable[[], Value]
    ) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "arguments", arguments)
        object.__setattr__(self, "_read_state", read_state)

    @property
    def state(self) -> Value:
        return self._read_state()

    def __repr__(self) -> str:
        return f"<{self.name}>"


_VIEWS = (MappingView, SequenceView, TensorRef, Opaque)


class Tree:
    """A pickle's graph, seen as plain values.

    Args:
        root: From `parse`.
        storage_of: Gives the storage for a persistent id, here as plain values.
        where: What to call the file in messages.
    """

    def __init__(
        self, root: Node, storage_of: Callable[[tuple[Value, ...]], Storage], where: str
    ) -> None:
        self.root = root
        self._storage_of = storage_of
        self._where = where
        # Nodes, views and storages are all compared by identity.
        self._views: dict[Node, Value] = {}
        self._keys: dict[Node, Opaque] = {}
        self._contents: dict[Node, Value] = {}

    @property
    def value(self) -> Value:
        """The whole pickle as a plain value."""
        return self.view(self.root, ())

    def view(self, node: Node, path: Path) -> Value:
        """The value of a node; `path` names it in messages."""
        node = resolve(node)
        if isinstance(node, Atom):
            return node.value
        if node not in self._views:
            self._views[node] = self._made(node, path)
        return self._views[node]

    def key(self, node: Node) -> Any:
        """A node as a key of a dict: a plain value, or an Opaque that is equal to nothing else.

        Tuples and huge integers are among the latter: their hashes can be made to collide.
        """
        node = resolve(node)
        value = node.value if isinstance(node, Atom) else None
        if isinstance(node, Call):
            value = _plain(node)
        huge = isinstance(value, int) and value.bit_length() > _KEY_BITS
        if not huge and (isinstance(node, Atom) or value is not None):
            return value
        return self._keys.setdefault(node, Opaque(kind_of(node) or "object", (), None))

    @contextmanager
    def edited(
        self, edits: Sequence[Edit], new_storage: NewStorage | None = None
    ) -> Iterator[Node]:
        """The graph with edits applied, for as long as the context lasts.

        Args:
            edits: Their values are plain, or views and TensorRefs of this tree, or new TensorRefs.
            new_storage: Makes the persistent id of a tensor that is not in this file.

        Raises:
            ValueError: The edits contradict each other, or a place is not there.
        """
        undo = self._apply(edits, new_storage)
        try:
            yield self.root
        finally:
            undo()

    def _apply(self, edits: Sequence[Edit], new_storage: NewStorage | None) -> Callable[[], None]:
        from liontool.checkpoint.formats.pickle_edit import Editor
        from liontool.checkpoint.formats.pickle_encode import Encoder

        nodes = {view: node for node, view in self._views.items() if isinstance(view, _VIEWS)}
        holders = {
            view.source.storage: node
            for view, node in nodes.items()
            if isinstance(view, TensorRef) and isinstance(view.source, Stored)
        }

        def node_of(value: Value) -> Node | None:
            return nodes.get(value) if isinstance(value, _VIEWS) else None

        def storage_node(storage: Storage) -> PersistentId | None:
            return storage_in(holders[storage]) if storage in holders else None

        editor = Editor(self.root, self.key, Encoder(new_storage, node_of, storage_node))
        for edit in edits:
            editor.add(edit)
        return editor.apply()

    def _made(self, node: Node, path: Path) -> Value:
        if is_mapping(node) and isinstance(node, Composite):
            return MappingView(self, node, path)
        kind = kind_of(node)
        if kind and isinstance(node, Composite):
            return SequenceView(self, [slot.value for slot in items(node)], path, kind)
        if isinstance(node, Global):
            return Opaque(node.full_name, (), None)
        if isinstance(node, PersistentId):
            return Opaque("persistent id", persistent_values(node), None)
        return self._called(node, path) if isinstance(node, Call) else None

    def _called(self, node: Call, path: Path) -> Value:
        found = tensor(node, self._storage, _label(path), self._where)
        if found is not None:
            return found
        plain = _plain(node)
        return self._opaque(node, path) if plain is None else plain

    def _opaque(self, node: Call, path: Path) -> Opaque:
        name = class_of(node)
        inside = (*path, name)
        if node.op in (op.OBJ, op.INST):
            given: Value = SequenceView(self, node.items[1:], inside, "tuple")
        else:
            given = self.view(node.items[1], inside)
        arguments = given if isinstance(given, SequenceView) else ()
        return _OpaqueView(name, arguments, lambda: self.state(node, inside))

    def state(self, node: Call, path: Path) -> Value:
        """Attributes of an object; for one that has none its entries or items."""
        state = state_of(node)
        if state is not None:
            return self.view(state, path)
        if node not in self._contents:
            self._contents[node] = self._contents_of(node, path)
        return self._contents[node]

    def _contents_of(self, node: Call, path: Path) -> Value:
        """What was put into an object of an unknown class by changes, not by arguments."""
        codes = {change.op for change in node.changes or ()}
        if codes & {op.SETITEM, op.SETITEMS}:
            return MappingView(self, node, path)
        if codes & {op.APPEND, op.APPENDS, op.ADDITEMS}:
            return SequenceView(self, [slot.value for slot in items(node)], path, "list")
        return None

    def _storage(self, pid: PersistentId) -> Storage:
        return self._storage_of(persistent_values(pid))


def _label(path: Path) -> str:
    """A path for messages, cut where the file makes it longer than anyone wants to read."""
    return ".".join(str(key)[:_LABEL] for key in path)[:_LABEL]


def _plain(node: Call) -> Value:
    """The number or the bytes that a call makes, else None."""
    number = numpy_scalar(node)
    return bytes_of(node) if number is None else number


def collect_storages(root: Node) -> list[PersistentId]:
    """Persistent ids in the order of their first use, each node once."""
    return [node for node in walk(root) if isinstance(node, PersistentId)]

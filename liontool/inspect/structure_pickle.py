"""What a pickle of torch says of its storages, against the storages that are there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.document import Span, Storage, Value
from liontool.checkpoint.formats.pickle_nodes import Call, Node, PersistentId, walk
from liontool.checkpoint.formats.pickle_tensors import item_size, persistent_values, tensor
from liontool.errors import FormatError
from liontool.inspect.findings import Finding
from liontool.inspect.places import at, short, without_path

_HUGE = 1 << 62


@dataclass(frozen=True)
class There:
    """The storages of a file.

    Attributes:
        path: The file.
        file: What to call it.
        lengths: Bytes of each storage by its key.
        place: Gives the name of a storage for people.
    """

    path: Path
    file: str
    lengths: Mapping[Value, int]
    place: Callable[[Value], str]


def check(root: Node, there: There) -> Iterator[Finding]:
    """Storages that are missing, too short, or used by nobody; tensors that reach too far."""
    nodes = list(walk(root))
    claims = dict(_claims(nodes))
    for key, pid in claims.items():
        yield from _storage(key, pid, there)
    yield from _tensors(nodes, there)
    unused = [key for key in there.lengths if key not in claims]
    if unused:
        room = sum(there.lengths[key] for key in unused)
        first = short(there.place(unused[0]))
        text = f"{len(unused):,} storages of {room:,} bytes are used by no tensor, {first} first"
        yield Finding("unused-storage", at(there.file), text)


def _claims(nodes: Iterable[Node]) -> Iterator[tuple[Value, tuple[Value, ...]]]:
    """The persistent id of each storage by its key; a key that is used twice says the same."""
    seen: set[tuple[Value, ...]] = set()
    for node in nodes:
        if isinstance(node, PersistentId):
            pid = persistent_values(node)
            plain = len(pid) > 4 and isinstance(pid[2], (str, int)) and isinstance(pid[4], int)
            if plain and pid[0] in ("storage", b"storage") and pid[:5] not in seen:
                seen.add(pid[:5])
                yield pid[2], pid


def _storage(key: Value, pid: tuple[Value, ...], there: There) -> Iterator[Finding]:
    where, size = at(there.file, there.place(key)), item_size(pid)
    if key not in there.lengths:
        yield Finding("missing-record", where, "a tensor's storage is missing")
    elif size is None:
        yield Finding("bad-pickle", where, f"is of the unknown class {short(str(pid[1]))}")
    elif pid[4] * size != there.lengths[key]:
        length = there.lengths[key]
        text = f"has {length:,} bytes, and the pickle claims {pid[4]:,} elements of {size}"
        yield Finding("storage-size", where, text)


def _tensors(nodes: Iterable[Node], there: There) -> Iterator[Finding]:
    """Tensors whose sizes make no sense, or that reach beyond what their storage should be."""

    def storage_of(node: PersistentId) -> Storage:
        pid = persistent_values(node)
        known = len(pid) > 4 and isinstance(pid[4], int) and not isinstance(pid[4], bool)
        length = (item_size(pid) or 1) * max(pid[4], 0) if known else 0
        key = pid[2] if len(pid) > 2 else None
        label = there.place(key) if isinstance(key, (str, int)) else "no storage"
        return Storage(Span(there.path, 0, min(length, _HUGE)), label=label)

    for node in nodes:
        if isinstance(node, Call):
            try:
                tensor(node, storage_of, "", str(there.path))
            except FormatError as error:
                text = without_path(error, there.path).replace("tensor ''", "a tensor")
                yield Finding("tensor-bounds", at(there.file), text)

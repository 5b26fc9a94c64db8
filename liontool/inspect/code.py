"""What the pickles of a checkpoint name, and what loading them would do. Nothing is imported."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from liontool.checkpoint.document import Span
from liontool.checkpoint.formats import pickle_opcodes as op
from liontool.checkpoint.formats.pickle_file import read_pickle
from liontool.checkpoint.formats.pickle_machine import Machine
from liontool.checkpoint.formats.pickle_nodes import (
    Atom,
    Call,
    Change,
    Composite,
    Global,
    Node,
    PersistentId,
    children,
    resolve,
    walk,
)
from liontool.checkpoint.formats.pickle_parse import protocol_of
from liontool.checkpoint.formats.pickle_readers import READERS
from liontool.checkpoint.formats.pickle_tensors import persistent_values
from liontool.checkpoint.formats.torch_legacy import is_legacy
from liontool.checkpoint.source import Source
from liontool.errors import LiontoolError
from liontool.inspect import structure_zip
from liontool.inspect.code_classes import DANGEROUS, PLAIN, UNKNOWN, class_of
from liontool.inspect.findings import Finding
from liontool.inspect.listing import TENSOR_FILES
from liontool.inspect.places import at, short, without_path

# What the unpickler of weights_only=True understands.
_OPCODES = frozenset(
    {
        op.GLOBAL, op.NEWOBJ, op.REDUCE, op.BUILD, op.APPEND, op.APPENDS, op.SETITEM, op.SETITEMS,
        op.TUPLE, op.TUPLE1, op.TUPLE2, op.TUPLE3, op.NONE, op.NEWFALSE, op.NEWTRUE,
        op.EMPTY_TUPLE, op.EMPTY_LIST, op.EMPTY_DICT, op.EMPTY_SET, op.BININT, op.BININT1,
        op.BININT2, op.BINFLOAT, op.BINUNICODE, op.SHORT_BINSTRING, op.BINPERSID, op.LONG1,
    }
)  # fmt: skip
_NEWEST_PLAIN_PROTOCOL = 3
_PICKLES_OF_LEGACY = 5
_SHOWN = 8


@dataclass(frozen=True)
class Named:
    """A class or function that a pickle names.

    Attributes:
        name: "module.name".
        kind: "plain": torch.load takes it; "rebuild": makes values and does nothing else;
            "unknown": a class of somebody's; "dangerous": can run programs, or read and write.
        called: Whether the pickle calls it, and does not only name it.
    """

    name: str
    kind: str
    called: bool


@dataclass(frozen=True)
class PickleCode:
    """One pickle.

    Attributes:
        file: The file in a folder; "" for a single file.
        record: Its place in the file: a record of the zip, "pickle 3" of a legacy file.
        protocol: Its protocol.
        names: Everything that it names, sorted.
        refusal: Why torch.load(weights_only=True) refuses it; "" where nothing says that it does.
        damage: Where it cannot be read on; what stands before may still be run. "" if whole.
    """

    file: str
    record: str
    protocol: int
    names: tuple[Named, ...]
    refusal: str
    damage: str

    @property
    def weights_only(self) -> bool:
        """Whether torch.load(weights_only=True) takes it, as far as names and opcodes tell."""
        return not self.refusal

    @property
    def foreign(self) -> tuple[Named, ...]:
        """Names whose modules torch.load(weights_only=False) would import: code that runs."""
        return tuple(named for named in self.names if named.kind in (UNKNOWN, DANGEROUS))

    @property
    def runs_code(self) -> bool:
        """Whether torch.load(weights_only=False) would run code that is not torch's or numpy's."""
        return bool(self.foreign)

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON."""
        return {
            "file": self.file,
            "record": self.record,
            "protocol": self.protocol,
            "names": [vars(named) for named in self.names],
            "weights_only": self.weights_only,
            "refusal": self.refusal or None,
            "runs_code": self.runs_code,
            "damage": self.damage or None,
        }


def code(source: Source) -> tuple[PickleCode, ...]:
    """What every pickle of a checkpoint names, damaged ones as far as they can be read."""
    names = source.listing() if source.is_folder else ("",)
    found: list[PickleCode] = []
    for name in names:
        path = source.path / name if name else source.path
        if not name or name.endswith((*TENSOR_FILES, ".pkl", ".pickle", ".metadata")):
            try:
                found.extend(_of_file(path, name))
            except (LiontoolError, OSError):  # what is wrong with the file is a finding of its own
                continue
    return tuple(found)


def code_findings(pickles: tuple[PickleCode, ...]) -> Iterator[Finding]:
    """One finding for each pickle and class of names that is not plain."""
    for pickle in pickles:
        where = at(pickle.file, pickle.record)
        for kind, id, advice in (
            (DANGEROUS, "dangerous-global", "do not load it with weights_only=False"),
            (UNKNOWN, "unknown-global", "weights_only=False would import and run their modules"),
        ):
            names = [named.name for named in pickle.names if named.kind == kind]
            if names:
                more = f" and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else ""
                listed = ", ".join(map(short, names[:_SHOWN]))
                yield Finding(id, where, f"names {listed}{more}; {advice}")


# --- where pickles are --------------------------------------------------------------------------


def _of_file(path: Path, file: str) -> Iterator[PickleCode]:
    with path.open("rb") as opened:
        head = opened.read(512)
    if head.startswith(b"PK"):
        for entry in structure_zip.walk(path, file).entries:
            if entry.span is not None and entry.name.endswith(".pkl"):
                yield _pickle(read_pickle(entry.span), file, entry.name)[0]
    elif is_legacy(head):
        yield from _of_legacy(path, file)
    elif head[:1] == b"\x80" and head[8:9] != b"{":
        yield _pickle(read_pickle(Span(path, 0, path.stat().st_size)), file, "")[0]


def _of_legacy(path: Path, file: str) -> Iterator[PickleCode]:
    """The pickles at the beginning of a legacy file; storages follow that are none."""
    left = path.stat().st_size
    offset, window = 0, 1 << 24
    for number in range(1, _PICKLES_OF_LEGACY + 1):
        data = read_pickle(Span(path, offset, min(window, left)))
        pickle, used = _pickle(data, file, f"pickle {number}")
        while pickle.damage and len(data) < left and window < 1 << 29:
            window *= 4
            data = read_pickle(Span(path, offset, min(window, left)))
            pickle, used = _pickle(data, file, f"pickle {number}")
        yield pickle
        if pickle.damage:
            return
        offset, left = offset + used, left - used


# --- what they name -----------------------------------------------------------------------------


def _pickle(data: bytes, file: str, record: str) -> tuple[PickleCode, int]:
    """One pickle at the beginning of `data`, and how long it is."""
    machine, damage = Machine(data, ""), ""
    roots: list[Node]
    try:
        roots = [machine.run(READERS)]
    except LiontoolError as error:
        damage = without_path(error, "")
        stacks = [machine.stack, *(stack for stack, _ in machine.marks)]
        roots = [*(node for stack in stacks for node in stack), *machine.memo]
        roots += machine.far_memo.values()
    graph = list(_graph(roots))
    names = _names(graph)
    protocol = protocol_of(data)
    lone = [root for root in roots if isinstance(root, Atom)]
    refusal = damage or _refusal(graph, lone, names, protocol)
    return PickleCode(file, record, protocol, names, refusal, damage), machine.position


def _graph(roots: list[Node]) -> Iterator[Composite]:
    seen: set[Node] = set()
    for root in roots:
        for node in walk(root):
            if isinstance(node, Composite) and node not in seen:
                seen.add(node)
                yield node


def _names(graph: list[Composite]) -> tuple[Named, ...]:
    named = {node.full_name for node in graph if isinstance(node, Global)}
    called = {
        made.full_name
        for node in graph
        if isinstance(node, Call) and isinstance(made := resolve(node.items[0]), Global)
    }
    return tuple(Named(name, class_of(name), name in called) for name in sorted(named))


def _refusal(
    graph: list[Composite], lone: list[Atom], names: tuple[Named, ...], protocol: int
) -> str:
    """Why torch.load(weights_only=True) would stop; "" if nothing is known that would stop it."""
    strange = [short(named.name) for named in names if named.kind != PLAIN]
    if strange:
        more = ", ..." if len(strange) > _SHOWN else ""
        return f"names {', '.join(strange[:_SHOWN])}{more}"
    if protocol > _NEWEST_PLAIN_PROTOCOL:
        return f"is written in protocol {protocol}"
    faults = (_node_fault(node) for node in graph)
    return next(filter(None, faults), _opcode_fault(atom.op for atom in lone))


def _node_fault(node: Composite) -> str:
    if isinstance(node, Call) and not isinstance(resolve(node.items[0]), Global):
        return "calls something that it computes"
    if isinstance(node, PersistentId) and persistent_values(node)[0] not in ("storage", b"storage"):
        return "refers to something that is no storage"
    codes = [node.op, *(change.op for change in node.changes or () if type(change) is Change)]
    codes += [child.op for child in children(node) if isinstance(child, Atom)]
    return _opcode_fault(codes)


def _opcode_fault(codes: Iterable[int]) -> str:
    bad = next((code for code in codes if code not in _OPCODES), None)
    return f"has the opcode {op.NAMES.get(bad, bad)}" if bad is not None else ""

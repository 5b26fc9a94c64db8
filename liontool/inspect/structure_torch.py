"""Everything that is wrong with a torch file, zip or legacy, or with a bare pickle."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from liontool.checkpoint.document import Span, Value
from liontool.checkpoint.formats.pickle_file import read_pickle
from liontool.checkpoint.formats.pickle_nodes import Node
from liontool.checkpoint.formats.pickle_parse import parse
from liontool.checkpoint.formats.pickle_tensors import item_size, persistent_values
from liontool.checkpoint.formats.pickle_tree import collect_storages
from liontool.checkpoint.formats.torch_legacy import Pickles
from liontool.checkpoint.formats.zip_records import read_span
from liontool.errors import FormatError, LiontoolError, TruncatedError
from liontool.inspect import structure_zip
from liontool.inspect.checksums import Check
from liontool.inspect.findings import Finding
from liontool.inspect.places import at, short, without_path
from liontool.inspect.structure_keys import repeated_keys
from liontool.inspect.structure_pickle import There, check
from liontool.inspect.structure_zip import Entry, ZipWalk

_COUNT = 8


def zip_findings(path: Path, file: str) -> tuple[ZipWalk, list[Check]]:
    """All findings of a zip file, and the checksums of its storages, which nobody has read yet."""
    walk = structure_zip.walk(path, file)
    walk.findings.extend(_zip_pickle(walk, path, file))
    prefix = f"{walk.prefix}data/"
    checks = [
        Check(entry.span, entry.crc, at(file, entry.name))
        for entry in walk.entries
        if entry.span is not None and entry.crc and entry.name.startswith(prefix)
    ]
    return walk, checks


def _zip_pickle(walk: ZipWalk, path: Path, file: str) -> Iterator[Finding]:
    """What data.pkl says, against the storages of the zip."""
    entry = walk.named("data.pkl")
    if entry is None or entry.span is None:
        return
    where = at(file, entry.name)
    try:
        data = read_pickle(entry.span)
        root, used = parse(data, where="")
    except LiontoolError as error:
        yield Finding("bad-pickle", where, without_path(error, ""))
        return
    if used != len(data):
        text = f"{len(data) - used:,} bytes follow the pickle"
        yield Finding("trailing-bytes", where, text)
    yield from repeated_keys(root, where)
    prefix = f"{walk.prefix}data/"
    lengths = {e.name.removeprefix(prefix): _length(e) for e in walk.entries if _is_data(e, prefix)}
    yield from check(root, There(path, file, lengths, lambda key: f"{prefix}{key}"))


def _is_data(entry: Entry, prefix: str) -> bool:
    return entry.name.startswith(prefix) and not entry.name.endswith("/") and entry.span is not None


def _length(entry: Entry) -> int:
    return entry.span.length if entry.span is not None else 0


def pickle_findings(path: Path, file: str) -> Iterator[Finding]:
    """All findings of a bare pickle."""
    try:
        data = read_pickle(Span(path, 0, path.stat().st_size))
        root, used = parse(data, where="")
    except TruncatedError as error:
        yield Finding("cut-short", at(file), without_path(error, ""))
    except LiontoolError as error:
        yield Finding("bad-pickle", at(file), without_path(error, ""))
    else:
        if used != len(data):
            text = f"{len(data) - used:,} bytes follow the pickle"
            yield Finding("trailing-bytes", at(file), text)
        yield from repeated_keys(root, at(file))


def legacy_findings(path: Path, file: str) -> Iterator[Finding]:
    """All findings of a legacy torch file: five pickles, and storages one after the other."""
    pickles = Pickles(path)
    try:
        for _ in range(3):  # magic number, version, system
            pickles.value(pickles.next()[0])
        root, _ = pickles.next()
        keys = pickles.keys()
    except TruncatedError as error:
        yield Finding("cut-short", at(file), without_path(error, path))
        return
    except FormatError as error:
        yield Finding("bad-pickle", at(file), without_path(error, path))
        return
    yield from repeated_keys(root, at(file))
    yield from _legacy_storages(keys, root, pickles, file)


def _legacy_storages(
    keys: Sequence[str | int] | None, root: Node, pickles: Pickles, file: str
) -> Iterator[Finding]:
    """Storages that are listed, against those that are there and those that are used."""
    if keys is None:
        yield Finding("storage-list", at(file), "the list of storages is none")
        return
    sizes = _item_sizes(root)
    lengths: dict[Value, int] = {}
    end = pickles.offset
    for index, key in enumerate(keys):
        where = at(file, f"storage {short(str(key))}")
        if key in lengths:
            yield Finding("storage-list", where, "is listed twice")
            continue
        if sizes.get(key) is None:
            text = "is used by no tensor, so that its length and all after it cannot be told"
            yield Finding("storage-list", where, text)
            return
        length = _stored_length(pickles, end, sizes[key] or 1)
        if length is None:
            text = f"{len(keys) - index:,} of {len(keys):,} storages are not whole, this one first"
            yield Finding("cut-short", where, text)
            return
        lengths[key] = length
        end += _COUNT + length
    if end != pickles.size:
        text = f"{pickles.size - end:,} bytes follow the storages"
        yield Finding("trailing-bytes", at(file), text)
    yield from check(root, There(pickles.path, file, lengths, lambda key: f"storage {key}"))


def _stored_length(pickles: Pickles, offset: int, size: int) -> int | None:
    """Bytes of the storage whose count stands at `offset`; None where it is not whole."""
    if offset + _COUNT > pickles.size:
        return None
    count = int.from_bytes(read_span(Span(pickles.path, offset, _COUNT)), "little", signed=True)
    return count * size if 0 <= count * size <= pickles.size - offset - _COUNT else None


def _item_sizes(root: Node) -> dict[Value, int | None]:
    """Bytes an element of each storage by its key: the first use tells."""
    sizes: dict[Value, int | None] = {}
    for node in collect_storages(root):
        pid = persistent_values(node)
        if len(pid) > 4 and isinstance(pid[2], (str, int)):
            sizes.setdefault(pid[2], item_size(pid))
    return sizes

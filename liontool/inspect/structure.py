"""Everything that is wrong with the files of a checkpoint, by walkers that go on after a fault."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from liontool.checkpoint import formats
from liontool.checkpoint.formats.torch_legacy import is_legacy
from liontool.checkpoint.publish import SUFFIX as TEMPORARY
from liontool.checkpoint.readable import whole
from liontool.checkpoint.run_folder import bounded_json
from liontool.checkpoint.source import Source
from liontool.errors import FormatError, LimitError, LiontoolError, UnsafePathError
from liontool.inspect import structure_index, structure_safetensors
from liontool.inspect.checksums import Check
from liontool.inspect.findings import NOTE, Finding
from liontool.inspect.listing import TENSOR_FILES
from liontool.inspect.places import at, odd_name, short, without_path

_HEAD = 512
_TAIL = 22 + 0xFFFF
_END = b"PK\x05\x06"
_JSON_FILES = (".json",)


@dataclass
class Structure:
    """What the walkers found.

    Attributes:
        findings: What is wrong, by file.
        checks: Checksums of storages, which nobody has read yet.
        files: How many files were walked.
    """

    findings: list[Finding] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    files: int = 0


def structure(source: Source) -> Structure:
    """Walk every file that can hold a part of a checkpoint.

    Raises:
        ReadError: The source is one file, and is of no kind that liontool knows.
    """
    found = Structure()
    if not source.is_folder:
        _walk_file(source, "", found)
        return found
    for name in source.listing():
        _folder_name(source, name, found)
        if name.endswith((*TENSOR_FILES, *_JSON_FILES)):
            _walk_file(source, name, found)
    return found


def _folder_name(source: Source, name: str, found: Structure) -> None:
    found.findings += odd_name(at(name), name)
    if name.endswith(TEMPORARY):
        text = "a write was interrupted; delete it when no liontool is running"
        found.findings.append(Finding("leftover", at(name), text))


def _walk_file(source: Source, name: str, found: Structure) -> None:
    """One file: what its walker says, and what the strict reader says if the walker is content.

    The walker comes first, so that what it parsed is gone when the reader keeps the same.
    """
    path = source.path / name if name else source.path
    before = len(found.findings)
    found.files += 1
    stranger = False
    link_fault = _reading_fault(source, name) if path.is_symlink() else None
    try:
        if not isinstance(link_fault, UnsafePathError):
            _walker(path)(path, name, found)
    except _StrangerError:
        stranger = True
    except OSError as error:
        text = f"cannot be read: {error.strerror or error}"
        found.findings.append(Finding("unreadable", at(name), text))
    index = formats.index_of(name)
    if index and index in source.listing():
        return  # it is read with its index, of which the same would be said
    fault = _reading_fault(source, name)
    if fault is None or any(finding.severity != NOTE for finding in found.findings[before:]):
        return
    if stranger and not source.is_folder:
        raise fault
    text = without_path(fault, path)
    found.findings.append(
        Finding("stranger", at(name), text) if stranger else _unreadable(fault, path, name)
    )


def _unreadable(error: LiontoolError, path: Path, name: str) -> Finding:
    kind = "unsafe-name" if isinstance(error, UnsafePathError) else "unreadable"
    return Finding(kind, at(name), without_path(error, path))


def _reading_fault(source: Source, name: str) -> LiontoolError | None:
    """What the strict reader does not like, if anything."""
    try:
        whole(source, name)
    except LiontoolError as error:
        return error
    return None


# --- which walker -------------------------------------------------------------------------------

_Walker = Callable[[Path, str, Structure], None]


class _StrangerError(Exception):
    """The file is no part of any checkpoint."""


def _walker(path: Path) -> _Walker:
    """By what the file holds."""
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
        head = file.read(_HEAD)
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _TAIL))
        tail = file.read() if not head.startswith(b"PK") else b""
    start = head.lstrip()
    if not head.strip(b"\0"):
        return _walk_empty
    if _begins_with_header(head):
        return _walk_safetensors
    if head.startswith(b"PK"):
        return _walk_zip
    if is_legacy(head):
        return _walk_legacy
    if head[:1] == b"\x80" and head[1:2] <= b"\x05":
        return _walk_pickle
    if path.name.endswith(structure_index.SUFFIX):
        return _walk_index
    if start[:1] in (b"{", b"["):
        return _walk_json
    if _END in tail:
        return _walk_zip
    return _walk_safetensors if path.suffix == ".safetensors" else _walk_stranger


def _begins_with_header(head: bytes) -> bool:
    """Whether there is a length of at most 4 GB, and then the header of a safetensors file."""
    return head[4:8] == bytes(4) and head[8:].lstrip()[:1] == b"{"


def _walk_stranger(path: Path, name: str, found: Structure) -> None:
    raise _StrangerError


def _walk_empty(path: Path, name: str, found: Structure) -> None:
    size = path.stat().st_size
    text = "begins with zeros: it was reserved on the disk, but never written"
    if not size:
        text = "has no bytes; was the run stopped while it was saving?"
    found.findings.append(Finding("empty-file", at(name), text))


def _walk_zip(path: Path, name: str, found: Structure) -> None:
    from liontool.inspect.structure_torch import zip_findings

    walk, checks = zip_findings(path, name)
    if not walk.is_torch:
        raise _StrangerError
    found.findings += walk.findings
    found.checks += checks


def _walk_legacy(path: Path, name: str, found: Structure) -> None:
    from liontool.inspect.structure_torch import legacy_findings

    found.findings += legacy_findings(path, name)


def _walk_pickle(path: Path, name: str, found: Structure) -> None:
    from liontool.inspect.structure_torch import pickle_findings

    found.findings += pickle_findings(path, name)


def _walk_safetensors(path: Path, name: str, found: Structure) -> None:
    try:
        bounded_json.check_file(path)
    except LimitError as error:
        found.findings.append(Finding("header-size", at(name), without_path(error, path)))
        return
    found.findings += structure_safetensors.walk(path, name)


def _walk_index(path: Path, name: str, found: Structure) -> None:
    """An index; its shards too, unless they are files of the folder that is walked anyway."""
    faults, shards = structure_index.walk(path, name)
    found.findings += faults
    if not name:
        for shard in shards:
            found.files += 1
            found.findings += structure_safetensors.walk(shard, shard.name)


def _walk_json(path: Path, name: str, found: Structure) -> None:
    from liontool.checkpoint.formats.json_file import repeated_names

    try:
        bounded_json.check_file(path)
        repeated = repeated_names(path)
    except FormatError as error:
        found.findings.append(Finding("bad-json", at(name), without_path(error, path)))
        return
    for key, count in repeated.items():
        text = f"'{short(key)}' stands {count} times in one object; most readers take the last"
        found.findings.append(Finding("duplicate-key", at(name), text))

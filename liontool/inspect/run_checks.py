"""Checkpoints of runs: every file against COMMIT, and what there is to say of the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from liontool.checkpoint.document import Span
from liontool.checkpoint.reading import BLOCK, ranges
from liontool.checkpoint.run_folder import layout
from liontool.checkpoint.run_folder.commit import MAX_BYTES, Commit, File
from liontool.checkpoint.run_folder.hashing import new_hash
from liontool.checkpoint.source import Source
from liontool.errors import DamagedError, ReadError
from liontool.inspect.checksums import Advance
from liontool.inspect.findings import Finding
from liontool.inspect.places import short


def run_findings(source: Source) -> Iterator[Finding]:
    """Which checkpoint of a run this is, where the folder of the run was given."""
    choice = source.choice
    if choice is None:
        return
    for one in choice.refused:
        text = f"{one.reason}; {source.path.name} is looked at in its place"
        yield Finding("passed-over", one.path.name, text)
    if choice.quarantined:
        names = ", ".join(path.name for path in choice.quarantined[:3])
        more = ", ..." if len(choice.quarantined) > 3 else ""
        yield Finding(
            "quarantined", layout.QUARANTINE, f"holds {names}{more}, found damaged before"
        )
    if choice.older:
        count = len(choice.older)
        text = f"the newest good checkpoint of the run; {count:,} older: {choice.older[0].name}"
        yield Finding("one-of-run", source.path.name, f"{text}{', ...' if count > 1 else ''}")


def committed_bytes(source: Source) -> int:
    """Bytes of all that COMMIT lists; 0 for what is no checkpoint of a run."""
    try:
        commit = _commit(source)
    except ReadError:
        return 0
    return sum(file.size for file in commit.files.values()) if commit is not None else 0


def commit_findings(source: Source, advance: Advance | None) -> Iterator[Finding]:
    """Everything in which a checkpoint of a run is not what its COMMIT says.

    Args:
        source: Any source.
        advance: Called with the bytes of each block; None to compare names and sizes alone.
    """
    try:
        commit = _commit(source)
    except DamagedError as error:
        yield Finding("damaged", "", str(error))
        return
    if commit is None:
        return
    there = set(source.listing()) - {layout.COMMIT}
    for name in sorted(there | commit.files.keys()):
        fault = _fault(source.path / name, name in there, commit.files.get(name), advance)
        if fault:
            yield Finding("damaged", short(name), fault)


def _commit(source: Source) -> Commit | None:
    if not source.is_of_run or layout.COMMIT not in source.listing():
        return None
    path = source.path / layout.COMMIT
    if path.is_symlink() or path.stat().st_size > MAX_BYTES:
        raise DamagedError(f"{layout.COMMIT} is a link, or larger than any that liontool writes")
    try:
        return Commit.decoded(path.read_bytes())
    except OSError as error:
        raise ReadError(f"{path}: cannot be read: {error.strerror}") from error


def _fault(path: Path, is_there: bool, file: File | None, advance: Advance | None) -> str:
    """What is wrong with one file, or ""."""
    if file is None:
        return f"was not committed: {layout.COMMIT} does not list it"
    if not is_there:
        return f"is missing, though {layout.COMMIT} lists it"
    if path.is_symlink():
        return "is a link, and a file was committed"
    size = path.stat().st_size
    if size != file.size:
        return f"has {size:,} bytes, and {file.size:,} were committed"
    if advance is None:
        return ""
    made = new_hash()
    for block in ranges(Span(path, 0, size), BLOCK):
        made.update(block)
        advance(len(block))
    return "" if made.hexdigest() == file.hash else "its bytes are not those that were committed"

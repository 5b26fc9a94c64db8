"""From edits to a file or folder on disk: what no edit names is copied as it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from liontool.checkpoint import copying, formats, publish, values
from liontool.checkpoint.document import Document, Edit, Span, TensorRef
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.sealing import CommitSeal
from liontool.checkpoint.source import Source
from liontool.errors import LayoutError

PROVENANCE_FILE = "liontool.json"
"""Name of the record about itself that a converted folder holds; in a zip it is a record."""

Progress = Callable[[int, int], None]


class Seal(Protocol):
    """The last file of a folder, which says what the others are once they are written."""

    @property
    def name(self) -> str:
        """Its name below the folder."""

    def made(self, root: Path, names: Sequence[str]) -> bytes:
        """Its content, from the files `names` of the folder `root`."""


@dataclass(frozen=True)
class Output:
    """What is going to be written: pieces by file name; the name of a single file is "".

    Attributes:
        files: The pieces of each file.
        links: Symbolic links of a folder, by name, with what they point to.
        folders: Folders in a folder that have nothing in them.
        seal: What a folder ends with, if it does.
    """

    files: Mapping[str, Sequence[copying.Piece]]
    links: Mapping[str, str]
    folders: Sequence[str] = ()
    seal: Seal | None = None

    @property
    def total(self) -> int:
        """Bytes of all files together."""
        return sum(copying.total(pieces) for pieces in self.files.values())

    @property
    def needed(self) -> int:
        """Room that it takes on disk: holes of sparse sources take none."""
        return sum(copying.needed(pieces) for pieces in self.files.values())


def rewritten(
    source: Source,
    edits: Sequence[Edit],
    *,
    scan: Collection[TensorRef],
    provenance: Mapping[str, Any],
) -> Output:
    """The same checkpoint with `edits` applied: a file for a file, a folder for a folder.

    Args:
        source: What was read.
        edits: Changes at Places of its documents.
        scan: Tensors in which NaN or infinity stops the writing.
        provenance: The record about itself; what it replaces, an older one, goes.

    Raises:
        LayoutError: Two files to be changed are links to one.
    """
    if not source.is_folder:
        document = source.document()
        return Output({"": formats.rewrite(document, edits, scan=scan, provenance=provenance)}, {})
    by_name: dict[str, list[Edit]] = {}
    for edit in edits:
        by_name.setdefault(edit.place.document, []).append(edit)
    # A link stays a link: what it leads to is in the folder too, and is the file that changes.
    changed = dict(_changed(source, by_name, scan))
    seal = None if source.commit is None else CommitSeal(source.commit)
    files: dict[str, Sequence[copying.Piece]] = {}
    links: dict[str, str] = {}
    for name in source.names():
        path = source.path / name
        if name == PROVENANCE_FILE or (seal is not None and name == seal.name):
            continue
        if path.is_symlink():
            links[name] = str(path.readlink())
        else:
            raw = [copying.Raw(Span(path, 0, path.stat().st_size))]
            files[name] = changed.get(name, raw)
    record = json.dumps(provenance, indent=1).encode() + b"\n"
    files[PROVENANCE_FILE] = [copying.Literal(record)]
    return Output(files, links, source.empty_folders(), seal)


def _changed(
    source: Source, edits: Mapping[str, Sequence[Edit]], scan: Collection[TensorRef]
) -> Iterator[tuple[str, Sequence[copying.Piece]]]:
    """The files that `edits`, by document, change, with their pieces."""
    for file, document in _by_file(source, edits).items():
        found = formats.rewrite_files(document, edits[document.name], scan=scan)
        yield from ((file if name == document.name else name, found[name]) for name in found)


def as_run(source: Source, output: Output) -> Output:
    """A checkpoint of a run as the only one of a new run; any other output as it is."""
    if source.commit is None:
        return output
    folder = f"{step_name(source.commit.step)}/"
    return Output(
        files={folder + name: pieces for name, pieces in output.files.items()},
        links={folder + name: link for name, link in output.links.items()},
        folders=[folder + name for name in output.folders],
        seal=CommitSeal(source.commit, folder),
    )


def _by_file(source: Source, names: Collection[str]) -> dict[str, Document]:
    """The documents of `names`, by the names of the files that hold their bytes."""
    found: dict[str, Document] = {}
    for name in names:
        file = source.resolved(name)
        if file in found:
            raise LayoutError(
                f"{source.path}: {found[file].name} and {name} are links to one file, {file}; "
                "make each a file of its own"
            )
        found[file] = source.document(name)
    return found


def write(
    output: Output,
    target: Path,
    *,
    source: Source,
    force: bool,
    progress: Progress | None = None,
    in_place: publish.InPlace | None = None,
) -> None:
    """Make `output` appear at `target`, whole or not at all.

    Raises:
        OutputExistsError: `target` exists and `force` is False.
        SourceChangedError: The source was written to in the meantime.
        RefusedError: A scanned tensor holds NaN or infinity.
        PublishError: The system refused; nothing was left behind.
    """
    advance = counter(progress, output.total)
    hook = source.check_unchanged
    if set(output.files) == {""}:
        with publish.new_file(
            target, size=output.needed, force=force, before_publish=hook, in_place=in_place
        ) as file:
            copying.write(output.files[""], file.fd, advance)
        return
    with publish.new_folder(
        target, size=output.needed, force=force, before_publish=hook, in_place=in_place
    ) as folder:
        for name, pieces in output.files.items():
            with folder.file(name) as file:
                copying.write(pieces, file.fd, advance)
        for name, link in output.links.items():
            folder.link(name, link)
        for name in output.folders:
            folder.folder(name)
        if output.seal is not None:
            sealed = copying.Literal(output.seal.made(folder.path, tuple(output.files)))
            with folder.file(output.seal.name) as file:
                copying.write([sealed], file.fd)


def check(tensors: Collection[TensorRef], progress: Progress | None = None) -> None:
    """Read tensors for nothing but NaN and infinity, as `write` does with those it scans.

    Raises:
        RefusedError: One holds NaN or infinity (id "nonfinite").
    """
    advance = counter(progress, sum(tensor.nbytes for tensor in tensors))
    for tensor in tensors:
        for block in values.byte_blocks(tensor):
            copying.check_finite(tensor, block)
            if advance is not None:
                advance(len(block))


def counter(progress: Progress | None, total: int) -> Callable[[int], None] | None:
    """What takes the bytes of each block and tells `progress` the sum so far."""
    if progress is None:
        return None
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    return advance

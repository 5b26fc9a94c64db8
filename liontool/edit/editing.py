"""The whole edit of a checkpoint on disk: read, apply the words, write, report."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from liontool.checkpoint import in_place as headers
from liontool.checkpoint import undo_record, writing
from liontool.checkpoint.document import Span
from liontool.checkpoint.formats.safetensors_edit import header_in_place, keeps_tensors
from liontool.checkpoint.formats.safetensors_file import SafetensorsDocument
from liontool.checkpoint.publish import InPlace
from liontool.checkpoint.reading import opened
from liontool.checkpoint.run_folder.layout import COMMIT, tree_name
from liontool.checkpoint.run_folder.lock import locked
from liontool.checkpoint.source import Source, open_source
from liontool.checkpoint.writing import Output, Progress
from liontool.edit import outputs
from liontool.edit.applying import Edited, edited
from liontool.edit.changes import changes
from liontool.edit.draft import Notice
from liontool.edit.provenance import provenance
from liontool.edit.reading import draft
from liontool.edit.report import COPY, HEADER, NOTHING, EditReport, UndoReport
from liontool.edit.words import parse
from liontool.errors import EditError, PublishError


def edit_checkpoint(
    path: str | PathLike[str],
    words: Sequence[str],
    *,
    output: str | PathLike[str] | None = None,
    in_place: bool = False,
    backup: bool = True,
    dry_run: bool = False,
    force: bool = False,
    framework: str | None = None,
    optimizers: Collection[str] = (),
    progress: Progress | None = None,
) -> EditReport:
    """Change a saved checkpoint as `words` say: all of them or none.

    Args:
        path: The file or folder; it is not touched unless `in_place`.
        words: Edits such as "lr=3e-5" or "drop:state.*.exp_avg_sq", applied from left to right.
        output: Where to write; None puts the result beside the source.
        in_place: Change the source itself. A header with room for it is written over, and
            `PATH.undo` leads back; else the source is replaced, and the old one is `PATH.orig`.
        backup: With `in_place`, whether there is a way back.
        dry_run: Write nothing and report everything.
        force: Replace an existing output.
        framework: Who wrote the checkpoint; None to find out.
        optimizers: Paths of the optimizers to edit; all of them if empty.
        progress: Called with the bytes written so far and the bytes in all.

    Raises:
        ValueError: An argument is not what is allowed, or a word is none.
        LiontoolError: See `liontool.errors`; nothing was written.
    """
    if in_place and output is not None:
        raise ValueError("an edit is written in place or to another name, not both")
    if isinstance(words, str):
        raise ValueError("edits are a list of words")
    parsed = parse(words)
    if in_place and not dry_run and os.path.isfile(path) and undo_record.is_there(Path(path)):
        headers.restore(Path(path))
    if in_place:
        _refuse_part(Path(path))
    source = open_source(path, deep=True, progress=progress)
    before, lens = draft(source, framework, tuple(optimizers))
    result = edited(before, lens, parsed)
    record = provenance(source, words, result.edits)
    job = _job(source, result, record, output=output, in_place=in_place, backup=backup)
    obstacles = tuple(_obstacles(job, source, force)) if dry_run else ()
    if not dry_run:
        _write(job, source, force=force, progress=progress)
    return _report(job, source, result, words, record, dry_run=dry_run, obstacles=obstacles)


def _refuse_part(path: Path) -> None:
    """A file whose bytes a COMMIT lists is not changed alone: the checkpoint would be damaged."""
    folder = Path(os.path.realpath(path)).parent
    if path.is_file() and all((folder / name).is_file() for name in (COMMIT, tree_name())):
        raise EditError(
            f"{path}: is a part of a checkpoint of a run, of which every byte is committed; "
            f"edit the whole: liontool edit {shlex.quote(str(folder))} ..."
        )


def undo(path: str | PathLike[str]) -> UndoReport:
    """Take back the last edit that was made in place, in the header of a safetensors file.

    Args:
        path: The file; `PATH.undo` must be beside it.

    Raises:
        EditError: There is nothing to go back by, or the file was changed by something else.
        PublishError: The system refused; to try again does no harm.
    """
    file = Path(path)
    old = Path(os.path.realpath(file) + outputs.BACKUP)
    if os.path.lexists(old) and not (file.is_file() and headers.can_undo(file)):
        raise EditError(
            f"{file}: its edit wrote it anew, and the one before is {old}; to go back to that: "
            f"mv -T {shlex.quote(str(old))} {shlex.quote(str(file))}"
        )
    if not file.is_file():
        raise EditError(f"{file}: is no file, and only files are edited in their headers")
    return UndoReport(str(file), headers.undo(file))


@dataclass(frozen=True)
class _Job:
    """What is going to be written, and where.

    Attributes:
        path: Where.
        how: "header", "copy" or "nothing".
        pieces: The whole file or folder, for "copy".
        header: The old and the new header, for "header".
        in_place: How a source is replaced; None where the output is another.
        notices: Why it is written so.
    """

    path: Path
    how: str
    pieces: Output | None = None
    header: tuple[bytes, bytes] | None = None
    in_place: InPlace | None = None
    keep_undo: bool = False
    notices: tuple[Notice, ...] = ()


def _job(
    source: Source,
    result: Edited,
    record: Mapping[str, Any],
    *,
    output: str | PathLike[str] | None,
    in_place: bool,
    backup: bool,
) -> _Job:
    if not in_place:
        path = outputs.destination(source, output)
        return _Job(path, COPY, writing.as_run(source, _pieces(source, result, record)))
    if not result.edits:
        return _Job(source.path, NOTHING)
    header, why = _header(source, result, record)
    if header is not None:
        return _Job(source.path, HEADER, header=header, keep_undo=backup)
    keep = InPlace(outputs.backup_of(source) if backup else None)
    notices = (Notice("written-anew", why),) if why else ()
    pieces = _pieces(source, result, record)
    return _Job(source.path, COPY, pieces, in_place=keep, notices=notices)


def _pieces(source: Source, result: Edited, record: Mapping[str, Any]) -> Output:
    return writing.rewritten(source, result.edits, scan=(), provenance=record)


def _header(
    source: Source, result: Edited, record: Mapping[str, Any]
) -> tuple[tuple[bytes, bytes] | None, str]:
    """The old and the new header, or why the file has to be written anew."""
    if source.is_folder or not isinstance(source.document(), SafetensorsDocument):
        return None, ""
    document = source.document()
    assert isinstance(document, SafetensorsDocument)
    if not keeps_tensors(document, result.edits):
        return None, ""
    new = header_in_place(document, result.edits, record)
    if new is None:
        return None, "the header has no room for the edit, so the file is written anew"
    if not headers.is_possible(source.path):
        return None, "the file has a second name (hard link) that must not change; written anew"
    with opened(source.path) as fd:
        old = undo_record.read(fd, Span(source.path, 0, document.overhead))
    return (old, new), ""


def _obstacles(job: _Job, source: Source, force: bool) -> Iterator[Notice]:
    """What would keep the output of a dry run from being written."""
    try:
        _check(job, source, force)
    except PublishError as error:
        yield Notice("output-refused", str(error))


def _check(job: _Job, source: Source, force: bool) -> None:
    if job.how == COPY:
        outputs.check(job.path, source, force=force, in_place=job.in_place)


def _write(job: _Job, source: Source, *, force: bool, progress: Progress | None) -> None:
    _check(job, source, force)
    if job.header is not None:
        old, new = job.header
        unchanged = source.check_unchanged
        headers.write_header(job.path, old, new, keep_undo=job.keep_undo, before_write=unchanged)
    elif job.pieces is not None:
        with _alone(job, source):
            writing.write(
                job.pieces,
                job.path,
                source=source,
                force=force,
                progress=progress,
                in_place=job.in_place,
            )


def _alone(job: _Job, source: Source) -> AbstractContextManager[None]:
    """Keep a run from training in the folder while a checkpoint in it is exchanged."""
    if job.in_place is None or source.home == source.path:
        return nullcontext()
    return locked(source.home, wait=0)


def _report(
    job: _Job,
    source: Source,
    result: Edited,
    words: Sequence[str],
    record: Mapping[str, Any],
    *,
    dry_run: bool,
    obstacles: tuple[Notice, ...],
) -> EditReport:
    kept = job.in_place.keep if job.in_place is not None else None
    torn = [Notice("torn-header", text) for text in source.notices()]
    older = [
        Notice("passed-over", f"{text}; {source.path.name} is edited in its place")
        for text in source.passed_over()
    ]
    return EditReport(
        source=str(source.path),
        output=str(job.path),
        backup=None if kept is None else str(kept),
        undo=str(undo_record.place(source.path)) if job.keep_undo else None,
        how=job.how,
        framework=result.before.checkpoint.framework,
        container="folder" if source.is_folder else source.document().container,
        words=tuple(words),
        changes=changes(result.before, result.after),
        notices=(*older, *torn, *result.after.notices, *job.notices, *obstacles),
        bytes_before=source.size,
        bytes_after=source.size if job.pieces is None else job.pieces.total,
        provenance=record,
        dry_run=dry_run,
    )

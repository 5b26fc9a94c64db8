"""How an edit is shown: the verdict first, then what is different."""

from __future__ import annotations

import shlex

from liontool import wording
from liontool.cli import render
from liontool.edit.report import COPY, HEADER, NOTHING, Change, EditReport, UndoReport

_VALUES = ("group", "scheduler", "metadata")
_WAYS = {
    HEADER: "the header was written over, tensors were not touched",
    COPY: "a raw copy with the edits in it",
    NOTHING: "nothing had to be written: it says so already",
}


def show(report: EditReport | UndoReport) -> None:
    """Print all of `report` for people."""
    page = render.Page()
    if isinstance(report, UndoReport):
        _undone(page, report)
        return
    _verdict(page, report)
    _changes(page, report)
    if report.notices:
        page.heading("Notes")
        page.items((notice.text for notice in report.notices), mark="!", style=render.WARNING)


def _undone(page: render.Page, report: UndoReport) -> None:
    page.headline(f"Took the last edit of {report.path} back", render.GOOD)
    left = f"{wording.count(report.left, 'edit')} more can be taken back the same way"
    page.facts({"left": left if report.left else "none: it is as it was before the first edit"})


def _verdict(page: render.Page, report: EditReport) -> None:
    here = report.output == report.source
    if report.dry_run:
        becomes = "would be edited in place" if here else f"would become {report.output}"
        page.headline(f"Dry run, nothing written: {report.source} {becomes}", render.WARNING)
    else:
        where = "in place" if here else f"to {report.output}"
        page.headline(f"Edited {report.source} {where}", render.GOOD)
    facts = {"edits": shlex.join(report.words)}
    facts["found"] = ", ".join(filter(None, (report.framework, report.container)))
    if not report.dry_run:
        facts["written"] = _WAYS[report.how]
    if report.bytes_before != report.bytes_after:
        facts["size"] = wording.saving(report.bytes_before, report.bytes_after)
    facts |= _way_back(report)
    page.facts(facts)


def _way_back(report: EditReport) -> dict[str, str]:
    if report.backup is not None:
        return {"before": report.backup}
    if report.undo is not None:
        return {"back": f"liontool edit {shlex.quote(report.source)} --undo"}
    return {}


def _changes(page: render.Page, report: EditReport) -> None:
    values = [change for change in report.changes if change.kind in _VALUES]
    others = [change for change in report.changes if change.kind not in _VALUES]
    if not report.changes:
        page.items(["nothing is different"])
    if values:
        page.heading("Values")
        page.table(("field", "before", "after"), map(_value_row, values), left=3)
    if others:
        page.heading("Tensors and names")
        page.table(("what", "name", "change"), map(_tensor_row, others), left=3)


def _value_row(change: Change) -> tuple[str, str, str]:
    return change.where, wording.value(change.before), wording.value(change.after)


def _tensor_row(change: Change) -> tuple[str, str, str]:
    noun = "name" if change.kind == "name" else f"{change.kind} tensor"
    return wording.count(change.count, noun), change.where, _becomes(change)


def _becomes(change: Change) -> str:
    if change.after is None:
        return "dropped"
    if change.before is None:
        return f"new: {change.after}"
    if change.before == change.where:
        return f"is now {change.after}"
    return f"{change.before} -> {change.after}"

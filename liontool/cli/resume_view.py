"""How the outlook of a run is shown: what a start would do, then why not otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from liontool import wording
from liontool.checkpoint.run_folder.choosing import Choice, Refused
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.facts import EXACT
from liontool.checkpoint.run_folder.lock import Holder
from liontool.cli import render
from liontool.resume.outlook import FRESH, NOTHING_GOOD, RESUME, Outlook

BAD = "red"
_STYLES = {RESUME: render.GOOD, FRESH: render.WARNING, NOTHING_GOOD: BAD}
_MOST = 20
_KNOWN_HERE = "on the machine and with the settings that saved it"


def show(found: Outlook) -> None:
    """Print all of `found` for people."""
    page = render.Page()
    page.headline(f"{found.choice.run}: {_verdict(found)}", _STYLES[found.answer])
    facts = dict(_facts(found))
    if facts:
        page.facts(facts)
    if found.reasons:
        page.heading("Why not exact")
        page.items(found.reasons)
    refusals(page, found.choice.refused, "Refused")
    if found.holder is not None:
        busy(page, found.holder)


def busy(page: render.Page, holder: Holder) -> None:
    """Who has the folder."""
    page.items([f"in use by {holder}"], mark="!", style=render.WARNING)


def refusals(page: render.Page, refused: tuple[Refused, ...], title: str) -> None:
    """Checkpoints that cannot be used, each with the reason."""
    if not refused:
        return
    page.heading(title)
    page.items([f"{one.path.name}: {one.reason}" for one in refused[:_MOST]], "x", BAD)
    if len(refused) > _MOST:
        page.items([f"and {len(refused) - _MOST:,} more, all of them with --json"])


def _verdict(found: Outlook) -> str:
    if found.choice.commit is not None:
        return f"a start goes on at step {found.choice.commit.step:,}"
    if found.answer == FRESH:
        return "holds no checkpoint: a start begins at step 0"
    return "no checkpoint is good: a start would refuse; put a copy back, or give another folder"


def _facts(found: Outlook) -> Iterator[tuple[str, str]]:
    choice = found.choice
    if choice.commit is not None:
        yield from _checkpoint(choice, choice.commit)
        yield "level", f"exact, {_KNOWN_HERE}" if found.level == EXACT else str(found.level)
    for name, paths in (
        ("older", choice.older),
        ("quarantined", choice.quarantined),
        ("renamed", choice.renamed),
        ("leftovers", found.leftovers),
    ):
        if paths:
            yield name, _names([path.name for path in paths])


def _checkpoint(choice: Choice, commit: Commit) -> Iterator[tuple[str, str]]:
    if choice.chosen is not None:
        yield "checkpoint", f"{choice.chosen.name}, every byte as it was committed"
    yield "saved", f"{_local(commit.time)}, in epoch {commit.epoch:,}"
    yield "size", f"{wording.size(commit.size)} in {wording.count(len(commit.files), 'file')}"
    if commit.metric is not None:
        yield "metric", wording.value(commit.metric)


def _local(time: float) -> str:
    try:
        return f"{datetime.fromtimestamp(time).astimezone():%Y-%m-%d %H:%M:%S %Z}"
    except (ValueError, OverflowError, OSError):  # a year beyond 9999
        return wording.NOTHING


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more

"""How the removal of checkpoints and the repair of a run are shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from liontool import wording
from liontool.cli import render
from liontool.cli.resume_view import BAD, busy, refusals
from liontool.resume.pruning import Thinned
from liontool.resume.repair import Repaired

_MOST = 20


def show_thinned(done: Thinned) -> None:
    """Print what was removed, or would be."""
    page = render.Page()
    page.headline(f"{done.run}: {_removal(done)}", BAD if done.failures else render.GOOD)
    page.facts({name: _names(paths) for name, paths in _lists(done)})
    refusals(page, done.refused, "Damaged: not counted, and left for `liontool runs repair`")
    if done.failures:
        page.items(done.failures, mark="x", style=BAD)
    if done.holder is not None:
        busy(page, done.holder)


def show_repaired(done: Repaired) -> None:
    """Print what was moved and deleted, or would be."""
    page = render.Page()
    page.headline(f"{done.run}: {_outcome(done)}", BAD if done.hopeless else render.GOOD)
    facts = dict(_found(done))
    if facts:
        page.facts(facts)
    refusals(page, done.refused, "Damaged")
    if done.holder is not None:
        busy(page, done.holder)


def _removal(done: Thinned) -> str:
    if not done.unwanted:
        return "nothing to remove"
    count = wording.count(len(done.unwanted if done.dry_run else done.removed), "checkpoint")
    return f"{count} {'would be ' if done.dry_run else ''}removed, {wording.size(done.size)} in all"


def _lists(done: Thinned) -> Iterator[tuple[str, Sequence[Path]]]:
    if done.unwanted:
        yield ("to remove", done.unwanted) if done.dry_run else ("removed", done.removed)
    yield "kept", done.kept


def _outcome(done: Repaired) -> str:
    if done.hopeless:
        return "no checkpoint is good, so nothing was touched; put a copy back"
    words = [
        f"{wording.count(number, noun)} {past}"
        for number, noun, past in (
            (len(done.refused), "damaged checkpoint", "moved into quarantine/"),
            (len(done.returned), "hidden checkpoint", "given its name back"),
            (len(done.leftovers), "leftover", "deleted"),
        )
        if number
    ]
    if not words:
        return "nothing to repair"
    return f"{'to do: ' if done.dry_run else ''}{', '.join(words)}"


def _found(done: Repaired) -> Iterator[tuple[str, str]]:
    if done.chosen is not None:
        yield "newest good", done.chosen.name
    if done.moved:
        yield "moved to", _names(done.moved, done.run)
    if done.returned:
        yield "named again", _names(done.returned)
    if done.leftovers:
        yield "leftovers", _names(done.leftovers)


def _names(paths: Sequence[Path], below: Path | None = None) -> str:
    names = [path.name if below is None else str(path.relative_to(below)) for path in paths]
    more = f" and {len(names) - _MOST:,} more" if len(names) > _MOST else ""
    return ", ".join(names[:_MOST]) + more or wording.NOTHING

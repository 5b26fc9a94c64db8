"""What a start in a run's folder would find. Reads only: moves nothing, takes no lock, no torch."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.checking import Progress
from liontool.checkpoint.run_folder.choosing import Choice, check_run, choose
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.facts import EXACT, STATE_EXACT, read_facts
from liontool.checkpoint.run_folder.lock import Holder, holder
from liontool.resume.leftovers import leftovers
from liontool.resume.returning import foreseen

SCHEMA = 1
"""Version of `Outlook.to_dict`."""

RESUME = "resume"
FRESH = "fresh"
NOTHING_GOOD = "nothing good"


@dataclass(frozen=True)
class Outlook:
    """What a start would find.

    Attributes:
        choice: Which checkpoint it would use, and why not the others.
        level: "exact" or "state-exact", None where no checkpoint is used.
        reasons: Why not exact.
        leftovers: What it would delete.
        holder: Who has the lock now.
    """

    choice: Choice
    level: str | None
    reasons: tuple[str, ...]
    leftovers: tuple[Path, ...]
    holder: Holder | None

    @property
    def answer(self) -> str:
        """ "resume", "fresh" or "nothing good"."""
        if self.choice.chosen is not None:
            return RESUME
        return FRESH if self.choice.fresh else NOTHING_GOOD

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        choice = self.choice
        return {
            "schema": SCHEMA,
            "run": str(choice.run),
            "answer": self.answer,
            "checkpoint": None if choice.commit is None else _checkpoint(choice, choice.commit),
            "level": self.level,
            "reasons": list(self.reasons),
            "refused": [one.to_dict() for one in choice.refused],
            "older": [path.name for path in choice.older],
            "quarantined": [path.name for path in choice.quarantined],
            "renamed": [path.name for path in choice.renamed],
            "leftovers": [path.name for path in self.leftovers],
            "locked_by": None if self.holder is None else asdict(self.holder),
        }


def outlook(run: Path, *, progress: Progress | None = None) -> Outlook:
    """Find out which checkpoint of a run would be used, and how exact the resume would be.

    Args:
        run: The folder.
        progress: Called with the bytes read so far and all of them, for each checkpoint.

    Raises:
        ReadError: The system refused to read something, or there is no such folder.
        LayoutError: A newer liontool wrote the checkpoint.
    """
    check_run(run)
    choice = foreseen(choose(run, progress=progress))
    level, reasons = (None, ()) if choice.chosen is None else _exactness(choice.chosen)
    left = tuple(path for path in leftovers(run) if path != choice.chosen)
    return Outlook(choice, level, reasons, left, holder(run))


def _checkpoint(choice: Choice, commit: Commit) -> dict[str, Any]:
    fields = {name: getattr(commit, name) for name in ("step", "epoch", "metric", "time", "size")}
    return {"name": choice.chosen.name if choice.chosen else None, **fields}


def _exactness(checkpoint: Path) -> tuple[str, tuple[str, ...]]:
    """What was noted when it was saved, and what has changed on this machine since."""
    facts = read_facts(checkpoint)
    level, noted = facts.get("level"), facts.get("reasons")
    reasons = [str(one) for one in noted] if isinstance(noted, list) else []
    reasons += _changed_versions(facts.get("versions"))
    return (EXACT if level == EXACT and not reasons else STATE_EXACT), tuple(reasons)


def _changed_versions(noted: object) -> Iterator[str]:
    """Of what can be asked without importing torch; a start compares more."""
    if not isinstance(noted, Mapping):
        return
    here = {"python": platform.python_version()}
    for name in ("torch", "numpy"):
        with suppress(importlib.metadata.PackageNotFoundError):
            here[name] = importlib.metadata.version(name)
    for name, now in here.items():
        before = noted.get(name, now)
        if before != now:
            yield f"the version of {name} is {now}, and was {before!s:.40}"

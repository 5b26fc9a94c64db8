"""Checkpoints that nobody wants any more are removed by hand, while nobody trains."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.checking import Progress
from liontool.checkpoint.run_folder.choosing import Refused, Survey, nothing_good, survey
from liontool.checkpoint.run_folder.lock import Holder
from liontool.errors import ResumeError
from liontool.resume.repair import undisturbed
from liontool.resume.retention import Keep, Pruned, doomed, remove_all

SCHEMA = 1
"""Version of `Thinned.to_dict`."""


@dataclass(frozen=True)
class Thinned:
    """What was removed from a run.

    Attributes:
        run: The folder.
        unwanted: The good checkpoints that nothing wants, oldest first.
        removed: Those of them that are gone.
        kept: The good ones that stay, newest first.
        refused: Damaged ones: neither counted nor removed.
        failures: What went wrong, a line each.
        size: Bytes of the unwanted ones.
        dry_run: Whether nothing was done.
        holder: Who has the folder, so that nothing could be done now; only with `dry_run`.
    """

    run: Path
    unwanted: tuple[Path, ...]
    removed: tuple[Path, ...]
    kept: tuple[Path, ...]
    refused: tuple[Refused, ...]
    failures: tuple[str, ...]
    size: int
    dry_run: bool
    holder: Holder | None

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        return {
            "schema": SCHEMA,
            "run": str(self.run),
            "unwanted": [path.name for path in self.unwanted],
            "removed": [path.name for path in self.removed],
            "kept": [path.name for path in self.kept],
            "damaged": [one.to_dict() for one in self.refused],
            "failures": list(self.failures),
            "size": self.size,
            "dry_run": self.dry_run,
            "locked_by": None if self.holder is None else asdict(self.holder),
        }


def thin_out(
    run: Path, keep: Keep, *, dry_run: bool = False, progress: Progress | None = None
) -> Thinned:
    """Remove the checkpoints that nothing wants. All bytes are compared: only good ones count.

    Args:
        run: The folder.
        keep: What stays; the newest two do in any case.
        dry_run: Only say what would go; takes no lock.
        progress: Called with the bytes read so far and all of them, for each checkpoint.

    Raises:
        LockedError: A run has the folder.
        ResumeError: No checkpoint is good, or the best are wanted and none has a metric.
        ReadError: The system refused to read something, or there is no such folder.
    """
    with undisturbed(run, dry_run=dry_run) as who:
        found = survey(run, progress=progress)
        _check(found, keep)
        unwanted = doomed(found.good, keep)
        done = Pruned() if dry_run else remove_all(unwanted)
    return Thinned(
        run=run,
        unwanted=tuple(unwanted),
        removed=done.removed,
        kept=tuple(path for path in found.good if path not in unwanted),
        refused=found.refused,
        failures=done.failures,
        size=sum(found.good[path].size for path in unwanted),
        dry_run=dry_run,
        holder=who,
    )


def _check(found: Survey, keep: Keep) -> None:
    if found.refused and not found.good:
        raise nothing_good(found.choice)
    if keep.best is not None and all(one.metric is None for one in found.good.values()):
        raise ResumeError(f"{found.run}: no checkpoint has a metric, so none is the best")

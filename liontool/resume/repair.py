"""The folder of a run is put in order: damaged checkpoints aside, leftovers away."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.checking import Progress
from liontool.checkpoint.run_folder.choosing import Refused, check_run, survey
from liontool.checkpoint.run_folder.layout import LOCK, is_run
from liontool.checkpoint.run_folder.lock import Holder, holder, locked
from liontool.errors import ReadError
from liontool.resume.leftovers import delete_leftovers, leftovers
from liontool.resume.quarantine import quarantine
from liontool.resume.returning import bring_back, foreseen, returning

SCHEMA = 1
"""Version of `Repaired.to_dict`."""


@dataclass(frozen=True)
class Repaired:
    """What was wrong in the folder of a run, and where it is now.

    Attributes:
        run: The folder.
        chosen: The newest good checkpoint, None where there is none.
        refused: The damaged checkpoints, under their old names.
        moved: Where they are now.
        returned: Checkpoints that lacked their names, under these names.
        leftovers: What saves and removals that were killed had left.
        dry_run: Whether nothing was done.
        holder: Who has the folder, so that nothing could be done now; only with `dry_run`.
    """

    run: Path
    chosen: Path | None
    refused: tuple[Refused, ...]
    moved: tuple[Path, ...]
    returned: tuple[Path, ...]
    leftovers: tuple[Path, ...]
    dry_run: bool
    holder: Holder | None = None

    @property
    def hopeless(self) -> bool:
        """Whether there are checkpoints, and none is good; then nothing was moved or deleted."""
        return self.chosen is None and bool(self.refused)

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        return {
            "schema": SCHEMA,
            "run": str(self.run),
            "chosen": None if self.chosen is None else self.chosen.name,
            "damaged": [one.to_dict() for one in self.refused],
            "moved": [str(path.relative_to(self.run)) for path in self.moved],
            "returned": [path.name for path in self.returned],
            "leftovers": [path.name for path in self.leftovers],
            "dry_run": self.dry_run,
            "locked_by": None if self.holder is None else asdict(self.holder),
        }


def repair(run: Path, *, dry_run: bool = False, progress: Progress | None = None) -> Repaired:
    """Compare all bytes of all checkpoints, move damaged ones aside and delete leftovers.

    A whole checkpoint that a killed edit or save has left under a hidden name has its own again.
    Where there are checkpoints and none is good nothing else is touched.

    Args:
        run: The folder.
        dry_run: Only say what there is to do; takes no lock.
        progress: Called with the bytes read so far and all of them, for each checkpoint.

    Raises:
        LockedError: A run has the folder.
        PublishError: Something could not be moved or deleted.
        ReadError: The system refused to read something, or there is no such folder.
    """
    with undisturbed(run, dry_run=dry_run) as who:
        found = survey(run, progress=progress).choice
        returned = returning(found) if dry_run else bring_back(found)
        if dry_run:
            found = foreseen(found)
        elif returned:
            found = survey(run, progress=progress).choice
        names = tuple(returned.values())
        left = tuple(path for path in leftovers(run) if path not in returned)
        repaired = Repaired(run, found.chosen, found.refused, (), names, left, dry_run, who)
        if dry_run or repaired.hopeless:
            return repaired
        moved = quarantine(found)
        delete_leftovers(run)
        return replace(repaired, moved=moved)


@contextmanager
def undisturbed(run: Path, *, dry_run: bool) -> Iterator[Holder | None]:
    """Hold the lock of a run in the body, or where nothing is to be done only say who has it.

    Raises:
        LockedError: A run has the folder.
        ReadError: There is no such folder, or nobody ever trained in it.
    """
    check_run(run)
    _check_begun(run)
    if dry_run:
        yield holder(run)
        return
    with locked(run, wait=0):
        yield None


def _check_begun(run: Path) -> None:
    """See that a run was begun here: a lock left in any other folder would be litter."""
    if not (is_run(run) or leftovers(run) or os.path.lexists(run / LOCK)):
        raise ReadError(f"{run}: is not the folder of a run: no checkpoint was ever saved in it")

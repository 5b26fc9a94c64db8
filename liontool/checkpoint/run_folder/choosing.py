"""Which checkpoint of a run is used: the newest whose bytes are all as they were committed.

Nothing here moves, writes or locks anything, and nothing needs torch.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from liontool.checkpoint.run_folder.checking import Progress, check, read_commit
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.layout import COMMIT, QUARANTINE, is_of_checkpoint, step_of
from liontool.errors import DamagedError, ReadError, ResumeError, UnfinishedError

_SHOWN = 3


@dataclass(frozen=True)
class Refused:
    """A checkpoint that cannot be used.

    Attributes:
        path: Its folder.
        reason: What is wrong with it, without its path.
    """

    path: Path
    reason: str

    def to_dict(self) -> dict[str, str]:
        """The same in the types of JSON."""
        return {"name": self.path.name, "reason": self.reason}


@dataclass(frozen=True)
class Choice:
    """The checkpoints of a run, looked at from the newest to the first good one.

    Attributes:
        run: The folder of the run.
        chosen: The newest good checkpoint; None where there is none.
        commit: What it says of itself.
        refused: Those that cannot be used, newest first.
        quarantined: Those that were moved away by an earlier start.
        older: The ones that nobody had to look at, newest first.
        renamed: Those that somebody gave a longer name; they are not looked at.
    """

    run: Path
    chosen: Path | None
    commit: Commit | None
    refused: tuple[Refused, ...]
    quarantined: tuple[Path, ...]
    older: tuple[Path, ...] = ()
    renamed: tuple[Path, ...] = ()

    @property
    def fresh(self) -> bool:
        """Whether nothing was ever saved here, so that a run may begin at its beginning."""
        found = self.refused or self.quarantined or self.renamed
        return self.chosen is None and not found


def choose(run: Path, *, deep: bool = True, progress: Progress | None = None) -> Choice:
    """Look for the newest good checkpoint of a run; a folder that is not there has none.

    Args:
        run: The folder of the run.
        deep: Whether to compare every byte, or only COMMIT, names and sizes.
        progress: Called with the bytes read so far and all of them, for each checkpoint.

    Raises:
        ReadError: The system refused to read something.
        LayoutError: A newer liontool wrote the checkpoint.
    """
    todo, refused = checkpoints(run), list[Refused]()
    chosen, commit = None, None
    while todo and chosen is None:
        path = todo.pop(0)
        try:
            commit = check(path, progress=progress) if deep else read_commit(path)
            chosen = path
        except (DamagedError, UnfinishedError) as error:
            refused.append(_refused(path, error))
    aside, renamed = _quarantined(run), _renamed(run)
    return Choice(run, chosen, commit, tuple(refused), aside, tuple(todo), renamed)


@dataclass(frozen=True)
class Survey:
    """All checkpoints of a run, every byte of them compared.

    Attributes:
        run: The folder of the run.
        good: Those that can be used, newest first.
        refused: The others, newest first.
        quarantined: Those that were moved away by an earlier start.
        renamed: Those that somebody gave a longer name.
    """

    run: Path
    good: Mapping[Path, Commit]
    refused: tuple[Refused, ...]
    quarantined: tuple[Path, ...]
    renamed: tuple[Path, ...]

    @property
    def choice(self) -> Choice:
        """The newest good one, and all that were refused, older ones among them."""
        good = tuple(self.good)
        chosen = good[0] if good else None
        commit = self.good[chosen] if chosen else None
        aside = self.quarantined
        return Choice(self.run, chosen, commit, self.refused, aside, good[1:], self.renamed)


def survey(run: Path, *, progress: Progress | None = None) -> Survey:
    """Compare every byte of every checkpoint; arguments and errors are those of `choose`."""
    good, refused = dict[Path, Commit](), list[Refused]()
    for path in checkpoints(run):
        try:
            good[path] = check(path, progress=progress)
        except (DamagedError, UnfinishedError) as error:
            refused.append(_refused(path, error))
    return Survey(run, good, tuple(refused), _quarantined(run), _renamed(run))


def check_run(run: Path) -> None:
    """See that there is a folder, and that it is not one of the checkpoints in it.

    Raises:
        ReadError: It is something else.
    """
    if not run.is_dir():
        raise ReadError(f"{run}: is not a folder" if run.exists() else f"{run}: no such folder")
    if step_of(run.resolve().name) is not None:
        raise ReadError(
            f"{run}: is one checkpoint; give the folder of the run: {run.resolve().parent}"
        )


def nothing_good(choice: Choice) -> ResumeError:
    """The error for a run that has checkpoints, none of which can be used."""
    reasons = [f"{one.path.name}: {one.reason}" for one in choice.refused[:_SHOWN]]
    if len(choice.refused) > _SHOWN:
        reasons.append(f"and {len(choice.refused) - _SHOWN:,} more")
    if choice.renamed:
        reasons.append(f"{choice.renamed[0].name:.80} was renamed")
    if choice.quarantined:
        reasons.append(f"{len(choice.quarantined):,} in {QUARANTINE}/")
    return ResumeError(
        f"{choice.run}: no checkpoint in it is good ({'; '.join(reasons)}), and a run that was "
        "saved does not begin again by itself; put a copy back, or give another folder"
    )


def checkpoints(run: Path) -> list[Path]:
    """What is called like a checkpoint, newest first."""
    steps = ((step_of(name), name) for name in _names(run))
    found = sorted(((step, name) for step, name in steps if step is not None), reverse=True)
    return [run / name for _, name in found]


def _quarantined(run: Path) -> tuple[Path, ...]:
    folder = run / QUARANTINE
    return tuple(folder / name for name in sorted(_names(folder)) if is_of_checkpoint(name))


def _renamed(run: Path) -> tuple[Path, ...]:
    names = [name for name in sorted(_names(run)) if is_of_checkpoint(name)]
    return tuple(
        run / name
        for name in names
        if step_of(name) is None and os.path.lexists(run / name / COMMIT)
    )


def _names(folder: Path) -> Iterator[str]:
    """The names in a folder that may be missing, but is nothing else."""
    try:
        if folder.name == QUARANTINE and not stat.S_ISDIR(os.lstat(folder).st_mode):
            raise ReadError(f"{folder}: is not a folder; take it away")
        yield from os.listdir(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ReadError(f"{folder}: cannot be read: {error.strerror or error}") from error


def _refused(path: Path, error: Exception) -> Refused:
    return Refused(path, str(error).removeprefix(f"{path}: "))

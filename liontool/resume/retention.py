"""Which checkpoints of a run stay, and the removal of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path

from liontool.checkpoint.run_folder.checking import read_commit
from liontool.checkpoint.run_folder.choosing import checkpoints
from liontool.checkpoint.run_folder.commit import Commit
from liontool.errors import DamagedError, LiontoolError, UnfinishedError
from liontool.resume.leftovers import remove

ALWAYS = 2
"""The newest ones stay whatever is asked for: the newest may turn out to be damaged."""


@dataclass(frozen=True)
class Keep:
    """What stays; a checkpoint stays if any of the three wants it.

    Attributes:
        last: The newest ones, at least two.
        every: Those whose step is a multiple of this.
        best: The ones with the lowest metric.
    """

    last: int = 3
    every: int | None = None
    best: int | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.default is None:
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"keep: {field.name} must be a whole number from 1, got {value!r}")

    @classmethod
    def of(cls, value: Keep | Mapping[str, object]) -> Keep:
        """What `Run(keep=...)` was given.

        Raises:
            ValueError: It names something else, or something that is no whole number from 1.
        """
        if isinstance(value, Keep):
            return value
        names = [field.name for field in fields(cls)]
        if not isinstance(value, Mapping):
            raise ValueError(f"keep must be a dict such as dict(last=3), got {value!r}")
        unknown = [name for name in value if name not in names]
        if unknown:
            raise ValueError(f"keep: unknown {unknown[0]!r}; choose from: {', '.join(names)}")
        return cls(**value)  # type: ignore[arg-type]


def doomed(commits: Mapping[Path, Commit], keep: Keep) -> list[Path]:
    """The checkpoints that nothing wants, oldest first.

    Args:
        commits: The committed checkpoints; no others are counted.
        keep: What stays.
    """
    newest = sorted(commits, key=lambda path: commits[path].step, reverse=True)
    kept = set(newest[: max(keep.last, ALWAYS)])
    if keep.every is not None:
        kept |= {path for path in newest if commits[path].step % keep.every == 0}
    if keep.best is not None:
        kept |= set(_by_metric(commits, newest)[: keep.best])
    return [path for path in reversed(newest) if path not in kept]


def _by_metric(commits: Mapping[Path, Commit], paths: list[Path]) -> list[Path]:
    """Those that have a metric, the lowest first; a run that broke (NaN) was never the best."""
    metrics = ((commits[path].metric, path) for path in paths)
    measured = [(value, path) for value, path in metrics if value is not None and value == value]
    return [path for _, path in sorted(measured, key=lambda pair: pair[0])]


@dataclass(frozen=True)
class Pruned:
    """What became of the checkpoints that nothing wanted.

    Attributes:
        removed: They are gone.
        failures: What went wrong, a line each; the next save tries again.
    """

    removed: tuple[Path, ...] = ()
    failures: tuple[str, ...] = ()


def prune(run: Path, keep: Keep, newest: int | None = None) -> Pruned:
    """Remove what nothing wants. Never raises for what the disk does: training goes on.

    Only for the holder of the run's lock.

    Args:
        run: The folder.
        keep: What stays.
        newest: The step just saved. Later ones are not this run's: copied in, or damaged and not
            moved aside. They neither count nor go, so this one and the one before it stay.
    """
    try:
        commits = committed(run)
        ours = {path: one for path, one in commits.items() if one.step <= (newest or one.step)}
        unwanted = doomed(ours, keep)
    except LiontoolError as error:
        return Pruned(failures=(f"old checkpoints were not removed: {error}",))
    return remove_all(unwanted)


def remove_all(unwanted: Sequence[Path]) -> Pruned:
    """Remove checkpoints, and go on with the next where one does not go."""
    removed, failures = list[Path](), list[str]()
    for path in unwanted:
        try:
            remove(path)
            removed.append(path)
        except OSError as error:
            failures.append(f"{path}: cannot be removed: {error.strerror or error}")
    return Pruned(tuple(removed), tuple(failures))


def committed(run: Path) -> dict[Path, Commit]:
    """The checkpoints that count: those with a COMMIT, and files of the sizes that it lists.

    Raises:
        ReadError: The system refused to read something.
        LayoutError: A newer liontool wrote one of them.
    """
    found = {}
    for path in checkpoints(run):
        with suppress(DamagedError, UnfinishedError):
            found[path] = read_commit(path)
    return found

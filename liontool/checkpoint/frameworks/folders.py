"""What to say of a folder that is no checkpoint, but holds some."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path, PurePosixPath

from liontool.checkpoint.frameworks.sharded import is_deepspeed_file
from liontool.checkpoint.run_folder.layout import COMMIT, step_of
from liontool.checkpoint.source import Source
from liontool.errors import AmbiguousError

_SHOWN_CHECKPOINTS = 10
_SHOWN_FILES = 12

_SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".tar", ".safetensors", ".safetensors.index.json")
_TRAINER_FILES = ("trainer_state.json", "optimizer.pt")

# Files beside checkpoints that hold no optimizer: random states, schedulers, settings, weights.
_WITHOUT_OPTIMIZER = re.compile(
    r"(rng_state|random_states|scheduler|training_args|pytorch_model|adapter_model).*"
    r"|model.*\.(bin|safetensors|json)"
    r"|.*-\d+-of-\d+\.safetensors"  # a shard: its index is the one to give
)


def several(source: Source) -> AmbiguousError | None:
    """The error for a folder with checkpoints somewhere in it, or None if there are none.

    Folders of Trainer go before files, and the newest first.
    """
    files = source.listing()
    folders = _trainer_folders(files)
    runs = {} if folders else _runs(source, files)
    if folders:
        newest = sorted(folders, key=lambda name: _modified(source, name), reverse=True)
        what = f"is a folder of runs; its checkpoints, newest first: {shown(newest)}"
    elif runs:
        newest = sorted(runs, key=lambda name: runs[name], reverse=True)
        what = f"is a folder of runs, newest first: {shown(newest)}"
    else:
        candidates = [name for name in files if _may_hold_optimizer(name)]
        if not candidates:
            return None
        newest = sorted(candidates, key=source.modified, reverse=True)
        several = f"{len(newest)} of which may be checkpoints, newest first"
        which = several if len(newest) > 1 else "one of which may be a checkpoint"
        what = f"is a folder of files, {which}: {shown(newest)}"
    name = "name one, such as" if len(newest) > 1 else "name it:"
    return AmbiguousError(f"{source.path}: {what}; {name} {argument(source.path / newest[0])}")


def _trainer_folders(files: Collection[str]) -> list[str]:
    """The folders that a Trainer finished, less those that were converted already."""
    folders = (
        {str(PurePosixPath(file).parent) for file in files if PurePosixPath(file).name == name}
        for name in _TRAINER_FILES
    )
    found = set.intersection(*folders)
    return sorted(name for name in found if not _is_output(PurePosixPath(name)))


def _runs(source: Source, files: Collection[str]) -> dict[str, int]:
    """The folders of runs that were not converted, with the time of their last save."""
    found: dict[str, int] = {}
    for file in files:
        path = PurePosixPath(file)
        if path.name == COMMIT and step_of(path.parent.name) is not None:
            run = path.parent.parent
            if not run.name.endswith(".lion"):
                time = source.modified(file)
                found[str(run)] = max(time, found.get(str(run), time))
    return found


def _modified(source: Source, folder: str) -> int:
    return source.modified(f"{folder}/{_TRAINER_FILES[0]}")


def _may_hold_optimizer(file: str) -> bool:
    path = PurePosixPath(file)
    if not file.endswith(_SUFFIXES) or _WITHOUT_OPTIMIZER.fullmatch(path.name):
        return False
    if is_deepspeed_file(path.name):
        return False
    return not any(_is_output(part) for part in (path, *path.parents))


def _is_output(path: PurePosixPath) -> bool:
    """Whether something is called as what was converted is."""
    return ".lion." in path.name or path.name.startswith("lion-")


def argument(path: Path) -> str:
    """A path to paste after a command."""
    text = str(path)
    return shlex.quote(f"./{text}" if text.startswith("-") else text)


def shown(names: Sequence[str]) -> str:
    """Checkpoints in the order given, the first ones if there are many."""
    return _first(names, _SHOWN_CHECKPOINTS)


def listing(files: Collection[str]) -> str:
    """The names of some files, for messages."""
    return _first(sorted(files), _SHOWN_FILES) or "nothing"


def _first(names: Sequence[str], most: int) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

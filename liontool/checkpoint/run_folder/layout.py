"""Names in the folder of a run."""

from __future__ import annotations

import os
import re
from pathlib import Path

from liontool.checkpoint.staging import SUFFIX

COMMIT = "COMMIT"
LOCK = "run.lock"
QUARANTINE = "quarantine"
FACTS = "run.json"
STATE = "liontool.state"
"""The key by which the JSON of a state is known."""

SCHEMA = 1
"""Version of the layout, in COMMIT, run.json and state-0.json."""

MAX_STEP = 10**10 - 1

_OF_WINDOWS = ("Thumbs.db", "desktop.ini")
_STEP = re.compile(r"step-(\d{10})")
_OF_CHECKPOINT = re.compile(r"step-[0-9]{10}([^0-9].*)?", re.DOTALL)
_TREE = re.compile(r"state-[0-9]+\.json")
_TENSORS = re.compile(r"state-([0-9]+)\.safetensors")
_LEFTOVER = re.compile(rf"\.\d+-[0-9a-f]{{8}}(\.old)?{re.escape(SUFFIX)}")


def step_name(step: int) -> str:
    """The folder of a checkpoint: "step-0000001200"."""
    return f"step-{step:010d}"


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint's folder; None for any other name."""
    match = _STEP.fullmatch(name)
    return int(match[1]) if match and name.isascii() else None


def is_of_checkpoint(name: str) -> bool:
    """Whether a name is that of a checkpoint, or that with more behind it, such as ".1"."""
    return _OF_CHECKPOINT.fullmatch(name) is not None


def tensors_name(rank: int = 0) -> str:
    """The file with the tensors of one process."""
    return f"state-{rank}.safetensors"


def tree_name(rank: int = 0) -> str:
    """The file with the rest of the state of one process."""
    return f"state-{rank}.json"


def is_json(name: str) -> bool:
    """Whether a file of this name, in a checkpoint of a run, is JSON."""
    return name == FACTS or _TREE.fullmatch(name) is not None


def tree_of(tensors: str) -> str:
    """The file that names the tensors in a file, by its name; "" for any other name."""
    match = _TENSORS.fullmatch(tensors)
    return f"state-{match[1]}.json" if match else ""


def is_hidden(name: str) -> bool:
    """Whether a name in a checkpoint is none of ours: what file browsers and NFS leave there.

    Such files are never read, so they are no reason to do without the checkpoint.
    """
    return name.startswith(".") or name in _OF_WINDOWS


def is_leftover(name: str) -> bool:
    """Whether a save that was killed left this name behind."""
    return _LEFTOVER.fullmatch(name) is not None


def is_aside(name: str) -> bool:
    """Whether a leftover had a proper name before, until an edit put it aside."""
    return is_leftover(name) and name.endswith(f".old{SUFFIX}")


def leftover_name() -> str:
    """A new hidden name for what is on its way out; a start deletes what stays under it."""
    return f".{os.getpid()}-{os.urandom(4).hex()}{SUFFIX}"


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: it has checkpoints, or quarantined ones."""
    return any(step_of(path.name) is not None for path in _entries(folder)) or (
        any(is_of_checkpoint(path.name) for path in _entries(folder / QUARANTINE))
    )


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []

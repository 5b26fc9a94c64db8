"""Checkpoints of runs with a few bytes in them, committed as real ones are; needs no torch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from liontool.checkpoint.run_folder.commit import Commit, File
from liontool.checkpoint.run_folder.hashing import hash_of
from liontool.checkpoint.run_folder.layout import COMMIT, FACTS, step_name

TENSORS = "state-0.safetensors"
TREE = "state-0.json"
TIME = 1_790_000_000.0


def run_facts(**changes: Any) -> bytes:
    """A run.json."""
    facts = {"liontool.run": 1, "level": "exact", "reasons": [], "versions": {}}
    return json.dumps(facts | changes).encode()


def commit_of(files: Mapping[str, bytes], step: int, metric: float | None = None) -> Commit:
    """What a save of these files would say of them."""
    entries = {name: File(len(data), hash_of(data)) for name, data in files.items()}
    return Commit(step, step // 100, metric, TIME, entries)


def saved(
    run: Path,
    step: int,
    *,
    metric: float | None = None,
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """A good checkpoint; returns its folder."""
    defaults = {TENSORS: b"tensors %d" % step, TREE: b"{}", FACTS: run_facts()}
    contents = defaults if files is None else defaults | dict(files)
    folder = run / step_name(step)
    folder.mkdir(parents=True)
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    (folder / COMMIT).write_bytes(commit_of(contents, step, metric).encoded())
    return folder


def flipped(file: Path, bit: int = 0) -> None:
    """The file with one bit changed."""
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def damaged(run: Path, step: int) -> Path:
    """A checkpoint in which one bit is wrong."""
    folder = saved(run, step)
    flipped(folder / TENSORS)
    return folder


def everything(folder: Path) -> dict[str, bytes | None]:
    """All names below a folder, with the bytes of the files: two of these tell what was touched."""
    found: dict[str, bytes | None] = {}
    for at, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(at) / name
            is_file = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(folder))] = path.read_bytes() if is_file else None
    return found

"""Writes a snapshot as a checkpoint that is whole and durable, or not there at all.

Files are hashed while they are written; COMMIT lists them and comes last. `publish` flushes every
file and folder and gives the checkpoint its name when nothing can be lost any more.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from liontool.checkpoint import publish
from liontool.checkpoint.run_folder.bounded_json import check_written, encoded
from liontool.checkpoint.run_folder.commit import Commit, File
from liontool.checkpoint.run_folder.hashing import new_hash
from liontool.checkpoint.run_folder.layout import (
    COMMIT,
    FACTS,
    SCHEMA,
    step_name,
    tensors_name,
    tree_name,
)
from liontool.checkpoint.staging import Hook
from liontool.checkpoint.system import SYSTEM
from liontool.resume.snapshot import Snapshot

_BLOCK = 4 << 20  # in the cache from hash to write; fewer would ask for the GIL more often
_PUSH = 16 << 20
_SLACK = 64 << 10
"""Bytes on disk besides the content: COMMIT, folders, the last block of each file."""

_WAYS_OUT = publish.WaysOut(
    exists="move it out of the folder of the run",
    no_space="make room there: `liontool runs prune` removes older checkpoints",
)


def write_checkpoint(
    run: Path,
    snapshot: Snapshot,
    before_publish: Hook | None = None,
    *,
    replace: bool = False,
) -> Path:
    """Write a checkpoint into the folder of a run; it is durable when this returns.

    Args:
        run: The folder.
        snapshot: What to write.
        before_publish: Called after the last byte; an exception calls everything off.
        replace: Whether a checkpoint of the same step gives way; it does so when this one is whole.

    Returns:
        The folder of the checkpoint.

    Raises:
        PublishError: It cannot be written; nothing was left behind.
        StateTypeError: The state has more values than a checkpoint is read with.
        ReadError: xxhash is not installed.
    """
    target = run / step_name(snapshot.step)
    contents = _contents(snapshot)
    size = sum(part.nbytes for parts in contents.values() for part in parts)
    with publish.new_folder(
        target,
        size=size + _SLACK,
        force=replace,
        before_publish=before_publish,
        ways_out=_WAYS_OUT,
    ) as folder:
        files = {}
        for name, parts in contents.items():
            with folder.file(name) as file:
                files[name] = _write(file.fd, parts)
        with folder.file(COMMIT) as file:
            _write(file.fd, [memoryview(_commit(snapshot, files).encoded())])
    return target


def _contents(snapshot: Snapshot) -> dict[str, list[memoryview]]:
    """Every file but COMMIT."""
    tree = {"liontool.state": SCHEMA, "tensors": tensors_name(), "tree": snapshot.tree}
    check_written(snapshot.body.header, "the header of the tensors")
    facts = {"liontool.run": SCHEMA, "step": snapshot.step, "epoch": snapshot.epoch, "ranks": 1}
    return {
        tensors_name(): [memoryview(snapshot.body.header), snapshot.body.data],
        tree_name(): [memoryview(encoded(tree, "the state"))],
        FACTS: [memoryview(encoded({**facts, **snapshot.facts}, FACTS))],
    }


def _commit(snapshot: Snapshot, files: Mapping[str, File]) -> Commit:
    return Commit(snapshot.step, snapshot.epoch, snapshot.metric, time.time(), files)


def _write(fd: int, parts: list[memoryview]) -> File:
    """Hash and write, block by block, and let the disk begin before the flush."""
    hashed = new_hash()
    size = pushed = 0
    for part in parts:
        for start in range(0, part.nbytes, _BLOCK):
            block = part[start : start + _BLOCK]
            hashed.update(block)
            _write_all(fd, block)
            size += block.nbytes
            if size - pushed >= _PUSH:
                with suppress(OSError):  # it is only advice
                    SYSTEM.push(fd, pushed, size - pushed)
                pushed = size
    return File(size, hashed.hexdigest())


def _write_all(fd: int, block: memoryview) -> None:
    while block:
        block = block[SYSTEM.write(fd, block) :]

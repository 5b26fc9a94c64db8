"""A snapshot on disk."""

from __future__ import annotations

import errno
import itertools
import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.layout import is_leftover
from liontool.checkpoint.system import SYSTEM
from liontool.errors import (
    LiontoolError,
    NoSpaceError,
    OutputExistsError,
    PublishError,
)
from liontool.resume.host_copy import HostCopy
from liontool.resume.snapshot import Body, Snapshot
from liontool.resume.writing import write_checkpoint
from support.faults import Death, Faults, Killed


def tensors(step: int) -> dict[str, torch.Tensor]:
    """What a step has."""
    return {"model.weight": torch.full((50, 3), float(step)), "model.bias": torch.ones(7).half()}


def snapshot(step: int = 7, metric: float | None = None) -> Snapshot:
    """A small state."""
    body = HostCopy().take(tensors(step))
    return Snapshot(step, 2, metric, body, {"run": {"step": step}}, {"level": "exact"})


def is_whole(folder: Path, step: int) -> bool:
    """Whether a checkpoint is there with every byte."""
    found = load_file(folder / "state-0.safetensors")
    wanted = tensors(step)
    return (
        check(folder).step == step
        and found.keys() == wanted.keys()
        and all(found[name].equal(wanted[name]) for name in wanted)
    )


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with a checkpoint of step 5."""
    write_checkpoint(tmp_path, snapshot(5))
    return tmp_path


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


def test_a_checkpoint_has_four_files(tmp_path: Path) -> None:
    """State, tree and facts are there, and the list of them."""
    folder = write_checkpoint(tmp_path, snapshot())
    assert names(tmp_path) == {"step-0000000007"}
    assert names(folder) == {"state-0.safetensors", "state-0.json", "run.json", "COMMIT"}
    assert is_whole(folder, 7)


def test_the_tree_names_its_tensors(tmp_path: Path) -> None:
    """state-0.json has the version, the file of the tensors and the tree."""
    folder = write_checkpoint(tmp_path, snapshot())
    assert json.loads((folder / "state-0.json").read_text()) == {
        "liontool.state": 1,
        "tensors": "state-0.safetensors",
        "tree": {"run": {"step": 7}},
    }


def test_the_facts_are_told_with_step_and_epoch(tmp_path: Path) -> None:
    """run.json has what the caller knows, and what the snapshot knows."""
    folder = write_checkpoint(tmp_path, snapshot())
    assert json.loads((folder / "run.json").read_text()) == {
        "liontool.run": 1,
        "step": 7,
        "epoch": 2,
        "ranks": 1,
        "level": "exact",
    }


@pytest.mark.parametrize("metric", [None, 0.25, float("inf")])
def test_the_commit_says_what_retention_asks(metric: float | None, tmp_path: Path) -> None:
    """COMMIT has step, epoch and metric."""
    commit = check(write_checkpoint(tmp_path, snapshot(metric=metric)))
    assert (commit.step, commit.epoch, commit.metric) == (7, 2, metric)


def test_a_body_of_many_blocks(tmp_path: Path) -> None:
    """A body larger than a block, and no multiple of it, is hashed and written whole."""
    state = {"x": torch.arange(9_000_001, dtype=torch.int16)}
    taken = Snapshot(1, 0, None, HostCopy().take(state), {}, {})
    folder = write_checkpoint(tmp_path, taken)
    check(folder)
    assert load_file(folder / "state-0.safetensors")["x"].equal(state["x"])


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that takes a few bytes at a time gets them all."""
    write = SYSTEM.write
    monkeypatch.setattr(SYSTEM, "write", lambda fd, data: write(fd, bytes(data[:13])))
    assert is_whole(write_checkpoint(tmp_path, snapshot()), 7)


def test_a_step_that_is_there_is_not_replaced(run: Path) -> None:
    """The error says so, and the checkpoint stays as it is."""
    with pytest.raises(
        OutputExistsError, match=r"step-0000000005: is there already; move it out of the folder"
    ):
        write_checkpoint(run, snapshot(5))
    assert names(run) == {"step-0000000005"}
    assert is_whole(run / "step-0000000005", 5)


def test_too_little_room_is_found_before_the_first_byte(run: Path) -> None:
    """The error names needed and free bytes, and a way out that a run has."""
    endless = memoryview(np.broadcast_to(np.uint8(0), (1 << 60,)))
    with pytest.raises(
        NoSpaceError,
        match=r"step-0000000006: needs 1,[\d,]+ bytes, and .* has [\d,]+ bytes free; make room "
        r"there: `liontool runs prune` removes older checkpoints",
    ):
        write_checkpoint(run, Snapshot(6, 0, None, Body(b"", endless), {}, {}))
    assert names(run) == {"step-0000000005"}


ERRORS = {
    "EIO": lambda: OSError(errno.EIO, "Input/output error"),
    "ENOSPC": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "EDQUOT": lambda: OSError(errno.EDQUOT, "Disk quota exceeded"),
    "memory": MemoryError,
    "interrupt": KeyboardInterrupt,
}


@pytest.mark.parametrize("error", ERRORS.values(), ids=ERRORS)
def test_each_call_that_fails_leaves_all_or_nothing(
    error: Callable[[], BaseException], run: Path
) -> None:
    """Whichever call fails: no new checkpoint or a whole one, the old one whole, no leftovers."""
    struck = True
    for fail_at in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            faults = Faults(patch, error, fail_at)
            raised = failing(run)
            struck = faults.struck
        assert is_whole(run / "step-0000000005", 5)
        if not struck:
            break
        assert not any(is_leftover(name) for name in names(run))
        if (new := run / "step-0000000007").exists():
            assert raised is None
            assert is_whole(new, 7)
            shutil.rmtree(new)
        else:
            assert isinstance(raised, PublishError | MemoryError | KeyboardInterrupt)
    assert is_whole(run / "step-0000000007", 7)
    assert fail_at > 20


def test_a_disk_that_breaks_for_good(run: Path) -> None:
    """From any call on nothing works any more: an error, and what has a name is whole."""
    for last in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            calls = _Broken(patch, last)
            raised = failing(run)
        new = run / "step-0000000007"
        assert is_whole(run / "step-0000000005", 5)
        assert not new.exists() or is_whole(new, 7)
        assert all(is_leftover(name) for name in names(run) - {new.name, "step-0000000005"})
        if not calls.broken:
            break
        assert isinstance(raised, PublishError)
        for path in run.iterdir():
            if path.name != "step-0000000005":
                shutil.rmtree(path)
    assert raised is None
    assert last > 20


class _Broken:
    """A system of which every call after the first so many fails."""

    def __init__(self, patch: pytest.MonkeyPatch, last: int) -> None:
        self.left = last
        self.broken = False
        for name, call in list(vars(SYSTEM).items()):
            patch.setattr(SYSTEM, name, self._calling(name, call))

    def _calling(self, name: str, call: Callable[..., object]) -> Callable[..., object]:
        def calling(*args: object) -> object:
            if self.left > 0:
                self.left -= 1
                return call(*args)
            self.broken = True
            if name == "close":  # the system closes a descriptor even when it reports an error
                call(*args)
            raise OSError(errno.EIO, "Input/output error")

        return calling


def failing(run: Path) -> BaseException | None:
    """What a save of step 7 raises."""
    try:
        write_checkpoint(run, snapshot())
    except (LiontoolError, MemoryError, KeyboardInterrupt) as error:
        return error
    return None


def test_a_death_in_each_call_leaves_all_or_nothing(run: Path) -> None:
    """Whenever the process dies: a name that is not hidden is that of a whole checkpoint."""
    for at in itertools.count():
        with pytest.MonkeyPatch.context() as patch:
            death = Death(patch, at)
            with suppress(Killed):
                write_checkpoint(run, snapshot())
        new = run / "step-0000000007"
        assert is_whole(run / "step-0000000005", 5)
        assert not new.exists() or is_whole(new, 7)
        assert all(is_leftover(name) for name in names(run) - {new.name, "step-0000000005"})
        if not death.struck:
            break
        shutil.rmtree(new, ignore_errors=True)
    assert is_whole(new, 7)


def test_killed_in_any_call_of_a_replacement(tmp_path: Path) -> None:
    """A checkpoint is replaced by another one of its step: one of the two is always whole."""
    old, new = 0, 0
    for at in itertools.count():
        run = tmp_path / str(at)
        run.mkdir()
        write_checkpoint(run, snapshot(metric=1.0))
        with pytest.MonkeyPatch.context() as patch:
            death = Death(patch, at)
            with suppress(Killed):
                write_checkpoint(run, snapshot(metric=2.0), replace=True)
        assert is_whole(run / "step-0000000007", 7)
        metric = check(run / "step-0000000007").metric
        old, new = old + (metric == 1.0), new + (metric == 2.0)
        if not death.struck:
            break
    assert names(run) == {"step-0000000007"}
    assert metric == 2.0
    assert min(old, new) > 2


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_is_full_at_any_byte(code: int, run: Path) -> None:
    """A disk that takes so many bytes and no more leaves the run as it was, and is told."""
    size = sum(path.stat().st_size for path in (run / "step-0000000005").iterdir())
    for room in range(0, size, 97):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(SYSTEM, "write", _Full(room, code).write)
            with pytest.raises(PublishError, match="step-0000000007: "):
                write_checkpoint(run, snapshot())
        assert names(run) == {"step-0000000005"}
    assert is_whole(run / "step-0000000005", 5)


class _Full:
    """A disk with so much room."""

    def __init__(self, room: int, code: int) -> None:
        self.room = room
        self.code = code

    def write(self, fd: int, data: memoryview) -> int:
        """As `os.write`: short where some bytes still fit, an error where none does."""
        if not self.room:
            raise OSError(self.code, os.strerror(self.code))
        done = os.write(fd, data[: self.room])
        self.room -= done
        return done


def test_everything_is_flushed_before_it_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each file is flushed before it is closed, COMMIT last; folder, name, folder follow."""
    faults = Faults(monkeypatch, KeyboardInterrupt, 1 << 60)
    write_checkpoint(tmp_path, snapshot())
    kinds = [name for name in faults.names if name not in ("statvfs", "push")]
    file = ["open", "write", "fsync", "close"]
    folder = ["open", "fsync", "close"]
    assert [name for i, name in enumerate(kinds) if name != "write" or kinds[i - 1] != name] == [
        "mkdir", *file, *file, *file, *file, *folder, "rename_new", *folder,
    ]  # fmt: skip

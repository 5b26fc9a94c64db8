"""Which checkpoint of a run is used, and why not the others."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import (
    check_run,
    choose,
    nothing_good,
    survey,
)
from liontool.checkpoint.run_folder.hashing import hash_of
from liontool.checkpoint.run_folder.layout import COMMIT
from liontool.errors import LayoutError, ReadError, ResumeError
from support.checkpoints import damaged, everything, saved
from support.faults import Faults


def test_newest(tmp_path: Path) -> None:
    """The newest good checkpoint is used; older ones need no look."""
    paths = [saved(tmp_path, step) for step in (100, 200, 300)]
    choice = choose(tmp_path)
    assert choice.chosen == paths[2]
    assert choice.commit is not None
    assert choice.commit.step == 300
    assert choice.older == (paths[1], paths[0])
    assert not choice.refused
    assert not choice.fresh


def test_damaged(tmp_path: Path) -> None:
    """A damaged one is named with its reason, and the next is used; nothing is touched."""
    good = saved(tmp_path, 100)
    bad = damaged(tmp_path, 200)
    unfinished = saved(tmp_path, 300)
    (unfinished / COMMIT).unlink()
    before = everything(tmp_path)
    choice = choose(tmp_path)
    assert choice.chosen == good
    assert [one.path for one in choice.refused] == [unfinished, bad]
    assert choice.refused[0].reason.startswith("has no COMMIT")
    assert choice.refused[1].reason.startswith("state-0.safetensors is damaged")
    assert everything(tmp_path) == before


def test_sizes_only(tmp_path: Path) -> None:
    """Whoever asks for headers only gets the newest with the right sizes."""
    bad = damaged(tmp_path, 200)
    assert choose(tmp_path, deep=False).chosen == bad
    assert choose(tmp_path).chosen is None


@pytest.mark.parametrize(
    "name", ["step-300", "Step-0000000300", ".5-0123abcd.liontool-tmp", "step-٠٠٠٠٠٠٠٣٠٠",
             "step-00000003000"]
)  # fmt: skip
def test_other_names(tmp_path: Path, name: str) -> None:
    """Only names that a save gives are looked at."""
    saved(tmp_path, 300).rename(tmp_path / name)
    assert choose(tmp_path).fresh


@pytest.mark.parametrize("name", ["quarantine/step-0000000300.old", "step-0000000300.orig"])
def test_renamed(tmp_path: Path, name: str) -> None:
    """A checkpoint that somebody gave a longer name was saved: nothing begins anew over it."""
    (tmp_path / "quarantine").mkdir()
    saved(tmp_path, 300).rename(tmp_path / name)
    for choice in (choose(tmp_path), survey(tmp_path).choice):
        assert choice.chosen is None
        assert not choice.fresh
        assert choice.quarantined + choice.renamed == (tmp_path / name,)
    words = "1 in quarantine/" if "/" in name else rf"{name} was renamed"
    with pytest.raises(ResumeError, match=rf"no checkpoint in it is good \({words}\)"):
        raise nothing_good(choose(tmp_path))


def test_other_files_of_that_name(tmp_path: Path) -> None:
    """What only begins with the name of a checkpoint and has no COMMIT was never one."""
    (tmp_path / "step-0000000300.png").write_bytes(b"")
    (tmp_path / "step-0000000300-samples").mkdir()
    assert choose(tmp_path).fresh


def test_fresh(tmp_path: Path) -> None:
    """A run begins anew only where nothing was ever saved."""
    assert choose(tmp_path / "nowhere").fresh
    assert choose(tmp_path).fresh
    saved(tmp_path / "quarantine", 100)
    choice = choose(tmp_path)
    assert choice.chosen is None
    assert not choice.fresh
    assert [path.name for path in choice.quarantined] == ["step-0000000100"]


def test_nothing_good(tmp_path: Path) -> None:
    """The error names each checkpoint, and says that nothing begins again by itself."""
    for step in (100, 200, 300, 400):
        damaged(tmp_path, step)
    saved(tmp_path / "quarantine", 50)
    error = nothing_good(choose(tmp_path))
    assert str(error).startswith(
        f"{tmp_path}: no checkpoint in it is good (step-0000000400: state-0.safetensors is damaged"
    )
    assert "; and 1 more; 1 in quarantine/)" in str(error)
    assert str(error).endswith(
        "a run that was saved does not begin again by itself; put a copy back, "
        "or give another folder"
    )


def test_survey(tmp_path: Path) -> None:
    """A survey looks at all of them, older ones too."""
    good = [saved(tmp_path, step) for step in (400, 200)]
    bad = [damaged(tmp_path, step) for step in (500, 300)]
    found = survey(tmp_path)
    assert list(found.good) == good
    assert [one.path for one in found.refused] == bad
    choice = found.choice
    assert (choice.chosen, choice.older, choice.refused) == (good[0], (good[1],), found.refused)
    assert survey(tmp_path / "nowhere").choice.fresh


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """What cannot be read is an error: no older checkpoint is taken in its place."""
    saved(tmp_path, 100)
    saved(tmp_path, 200)
    Faults(monkeypatch, lambda: OSError(code, os.strerror(code)), 0)
    with pytest.raises(ReadError, match=r"step-0000000200: cannot be read: .* no fault of the ch"):
        choose(tmp_path)


def test_unreadable_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the run's folder cannot be listed: it is not taken for an empty one."""

    def broken(_: object) -> list[str]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    saved(tmp_path, 100)
    monkeypatch.setattr(os, "listdir", broken)
    with pytest.raises(ReadError, match="cannot be read: Input/output error"):
        choose(tmp_path)


def test_newer_layout(tmp_path: Path) -> None:
    """A checkpoint of a newer liontool is an error too: an older one would lose its steps."""
    saved(tmp_path, 100)
    commit = saved(tmp_path, 200) / COMMIT
    line = commit.read_bytes().splitlines()[0].replace(b'commit": 1', b'commit": 7')
    commit.write_bytes(b"%s\n%s\n" % (line, hash_of(line).encode()))
    with pytest.raises(LayoutError, match="layout 7 with 'xxh3-128' is newer than this liontool"):
        choose(tmp_path)


@pytest.mark.parametrize("kind", ["link", "file"])
def test_quarantine_is_no_folder(tmp_path: Path, kind: str) -> None:
    """Nothing is looked for in, or moved to, what only bears the name of the quarantine."""
    place = tmp_path / "quarantine"
    place.symlink_to(tmp_path.parent) if kind == "link" else place.write_bytes(b"")
    with pytest.raises(ReadError, match="quarantine: is not a folder; take it away"):
        choose(tmp_path)


def test_no_run(tmp_path: Path) -> None:
    """Commands say at once that they were not given the folder of a run."""
    with pytest.raises(ReadError, match="nowhere: no such folder"):
        check_run(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadError, match="file: is not a folder"):
        check_run(tmp_path / "file")
    one = saved(tmp_path, 100)
    with pytest.raises(ReadError, match=f"is one checkpoint; give the folder of .*: {tmp_path}"):
        check_run(one)

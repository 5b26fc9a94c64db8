"""Damaged checkpoints are moved aside, but only once another one has been verified."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError
from liontool.resume.quarantine import quarantine
from support.checkpoints import damaged, everything, saved
from support.faults import Death, Faults, Killed
from support.recorded import Recorded


def test_moved(tmp_path: Path) -> None:
    """The refused ones are in quarantine/ as they were, and the next start does not see them."""
    good = saved(tmp_path, 100)
    bad = damaged(tmp_path, 200)
    before = everything(bad)
    moved = quarantine(choose(tmp_path))
    assert moved == (tmp_path / "quarantine" / step_name(200),)
    assert everything(moved[0]) == before
    choice = choose(tmp_path)
    assert (choice.chosen, choice.refused, choice.quarantined) == (good, (), moved)


def test_durable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No power failure takes one away: the new folder, the new name, and then the old one's end."""
    saved(tmp_path, 100)
    damaged(tmp_path, 200)
    choice = choose(tmp_path)
    calls = Recorded(monkeypatch, tmp_path)
    quarantine(choice)
    name = step_name(200)
    assert calls == [
        "mkdir quarantine",
        "fsync .",
        f"rename_new {name} quarantine/{name}",
        "fsync quarantine",
        "fsync .",
    ]


def test_nothing_good(tmp_path: Path) -> None:
    """While nothing good is left nothing is moved."""
    damaged(tmp_path, 200)
    before = everything(tmp_path)
    assert quarantine(choose(tmp_path)) == ()
    assert everything(tmp_path) == before


def test_nothing_bad(tmp_path: Path) -> None:
    """Where nothing was refused there is no quarantine either."""
    saved(tmp_path, 100)
    assert quarantine(choose(tmp_path)) == ()
    assert os.listdir(tmp_path) == [step_name(100)]


@pytest.mark.parametrize("supported", [True, False])
def test_taken_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, supported: bool) -> None:
    """A step that is damaged again gets the next free name; what is there is never replaced."""
    if not supported:  # some network file systems

        def rename_new(*_: object) -> None:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

        monkeypatch.setattr(SYSTEM, "rename_new", rename_new)
    saved(tmp_path, 100)
    names = []
    for _ in range(3):
        damaged(tmp_path, 200)
        names += [path.name for path in quarantine(choose(tmp_path))]
    assert names == [step_name(200), f"{step_name(200)}.1", f"{step_name(200)}.2"]
    assert [path.name for path in choose(tmp_path).quarantined] == names


def test_link(tmp_path: Path) -> None:
    """Of a link the link is moved, and not what it leads to."""
    saved(tmp_path, 100)
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / step_name(200)).symlink_to(outside)
    (moved,) = quarantine(choose(tmp_path))
    assert moved.is_symlink()
    assert outside.is_dir()


def test_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses to move is one line that names what is to be moved."""
    saved(tmp_path, 100)
    damaged(tmp_path, 200)
    choice = choose(tmp_path)
    Faults(monkeypatch, lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)), 0)
    message = (
        r"quarantine: damaged checkpoints cannot be moved there: Read-only file system; "
        r"move them yourself: step-0000000200$"
    )
    with pytest.raises(PublishError, match=message):
        quarantine(choice)


def test_faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever call fails, nothing is lost."""
    for at in range(40):
        run = tmp_path / str(at)
        saved(run, 100)
        damaged(run, 200)
        choice = choose(run)
        with monkeypatch.context() as patch:
            faults = Faults(patch, lambda: OSError(errno.EROFS, os.strerror(errno.EROFS)), at)
            with suppress(PublishError):
                quarantine(choice)
            faults.enabled = False
        if not faults.struck:
            break
        assert choose(run).chosen == run / step_name(100)
        assert len(choose(run).refused) + len(choose(run).quarantined) == 1
    assert at > 5


def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in any call, the next start finds the same checkpoint."""
    for at in range(40):
        run = tmp_path / str(at)
        saved(run, 100)
        damaged(run, 200)
        choice = choose(run)
        with monkeypatch.context() as patch:
            death = Death(patch, at)
            with suppress(Killed):
                quarantine(choice)
        if not death.struck:
            break
        found = choose(run)
        assert found.chosen == choice.chosen
        assert len(found.refused) + len(found.quarantined) == 1
    assert at > 5

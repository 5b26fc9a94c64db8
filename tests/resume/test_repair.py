"""The folder of a run is put in order by hand."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.layout import COMMIT, step_name
from liontool.checkpoint.run_folder.lock import locked
from liontool.checkpoint.system import SYSTEM
from liontool.errors import LockedError, PublishError, ReadError
from liontool.resume.leftovers import delete_leftovers, leftovers
from liontool.resume.repair import repair
from support.checkpoints import damaged, everything, saved
from support.faults import Death, Killed
from support.recorded import Recorded

LEFT = (".12-0123abcd.liontool-tmp", ".12-0123abcd.old.liontool-tmp")


def _untidy(run: Path) -> None:
    """Two good checkpoints, a damaged one between, an unfinished one, and leftovers."""
    saved(run, 100)
    damaged(run, 200)
    saved(run, 300)
    (saved(run, 400) / COMMIT).unlink()
    saved(run, 1).rename(run / LEFT[0])
    (run / LEFT[1]).write_bytes(b"")


def test_repair(tmp_path: Path) -> None:
    """All damaged ones are moved, older ones too, and leftovers are gone."""
    _untidy(tmp_path)
    done = repair(tmp_path)
    assert done.chosen == tmp_path / step_name(300)
    assert [one.path.name for one in done.refused] == [step_name(400), step_name(200)]
    assert done.moved == tuple(tmp_path / "quarantine" / step_name(step) for step in (400, 200))
    assert [path.name for path in done.leftovers] == [LEFT[0], LEFT[1]]
    assert not done.hopeless
    assert sorted(os.listdir(tmp_path)) == [
        "quarantine", "run.lock", step_name(100), step_name(300)
    ]  # fmt: skip
    again = repair(tmp_path)
    assert (again.refused, again.leftovers) == ((), ())


def test_nothing_is_deleted_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be undone comes last: first the damaged ones are safe, then leftovers go."""
    _untidy(tmp_path)
    calls = Recorded(monkeypatch, tmp_path)
    repair(tmp_path)
    kinds = [call.split()[0] for call in calls if "fsync" not in call]
    assert kinds == ["mkdir", "rename_new", "rename_new", "rmtree", "unlink"]


def test_dry_run(tmp_path: Path) -> None:
    """A dry run says the same and touches nothing, also while a run has the folder."""
    _untidy(tmp_path)
    before = everything(tmp_path)
    done = repair(tmp_path, dry_run=True)
    assert everything(tmp_path) == before
    assert done.holder is None
    with locked(tmp_path):
        busy = repair(tmp_path, dry_run=True)
        assert busy.holder is not None
        assert busy.to_dict()["locked_by"]["pid"] == os.getpid()
    assert done.to_dict() == {
        "schema": 1,
        "run": str(tmp_path),
        "chosen": step_name(300),
        "damaged": [one.to_dict() for one in repair(tmp_path).refused],
        "moved": [],
        "returned": [],
        "leftovers": list(LEFT),
        "dry_run": True,
        "locked_by": None,
    }


def test_nothing_good(tmp_path: Path) -> None:
    """Where no checkpoint is good nothing is touched: a leftover may be the best there is."""
    damaged(tmp_path, 100)
    damaged(tmp_path, 200).rename(tmp_path / LEFT[0])
    before = everything(tmp_path)
    done = repair(tmp_path)
    assert done.hopeless
    assert done.moved == ()
    assert everything(tmp_path) == before | {"run.lock": (tmp_path / "run.lock").read_bytes()}


def test_never_saved(tmp_path: Path) -> None:
    """What the first save left can go."""
    (tmp_path / LEFT[0]).mkdir()
    done = repair(tmp_path)
    assert not done.hopeless
    assert leftovers(tmp_path) == []


def test_busy(tmp_path: Path) -> None:
    """Nothing is repaired while a run has the folder."""
    _untidy(tmp_path)
    with locked(tmp_path):
        before = everything(tmp_path)
        with pytest.raises(LockedError, match="this process trains in it already"):
            repair(tmp_path)
        assert everything(tmp_path) == before


def test_no_folder(tmp_path: Path) -> None:
    """A folder that is not there is not made."""
    with pytest.raises(ReadError, match="nowhere: no such folder"):
        repair(tmp_path / "nowhere")
    assert everything(tmp_path) == {}


def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in any call, what is good stays good, and the next repair ends the work."""
    for at in range(80):
        run = tmp_path / str(at)
        _untidy(run)
        with monkeypatch.context() as patch:
            death = Death(patch, at)
            with suppress(Killed):
                repair(run)
        if not death.struck:
            break
        assert choose(run).chosen == run / step_name(300)
        repair(run)
        assert sorted(path.name for path in choose(run).quarantined) == [
            step_name(200), step_name(400)
        ]  # fmt: skip
        assert leftovers(run) == []
    assert at > 20


# --- leftovers ----------------------------------------------------------------------------------


def test_only_hidden_names(tmp_path: Path) -> None:
    """Nothing is deleted but names that a save gives."""
    names = ["notes.txt", ".12-0123abcd", "12-0123abcd.liontool-tmp", ".x-0123abcd.liontool-tmp"]
    for name in names:
        (tmp_path / name).mkdir()
    assert delete_leftovers(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == sorted(names)
    assert leftovers(tmp_path / "nowhere") == []


def test_leftover_that_is_a_link(tmp_path: Path) -> None:
    """Of a link the link goes, and not what it leads to."""
    good = saved(tmp_path, 100)
    (tmp_path / LEFT[0]).symlink_to(good)
    assert delete_leftovers(tmp_path) == [tmp_path / LEFT[0]]
    assert choose(tmp_path).chosen == good


def test_leftover_that_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that the system does not delete is named."""

    def refusing(_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    (tmp_path / LEFT[0]).mkdir()
    monkeypatch.setattr(SYSTEM, "rmtree", refusing)
    message = r"\.liontool-tmp: was left by a save that was killed, and cannot be deleted: Perm"
    with pytest.raises(PublishError, match=message):
        delete_leftovers(tmp_path)


def test_folder_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder that cannot be listed has not no leftovers."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ReadError, match="file: cannot be read: Not a directory"):
        leftovers(tmp_path / "file")

"""Whole checkpoints that something killed has left under hidden names."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.layout import COMMIT, is_aside, step_name
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError, ReadError, ResumeError
from liontool.resume.outlook import FRESH, NOTHING_GOOD, RESUME, outlook
from liontool.resume.repair import repair
from liontool.resume.returning import bring_back, returning
from support.checkpoints import TENSORS, damaged, everything, flipped, saved
from support.faults import Death, Killed
from support.small_runs import begun, left, let_go

TEMPORARY = ".12-0123abcd.liontool-tmp"
ASIDE = ".12-0123abcd.old.liontool-tmp"


def test_names() -> None:
    """Only what an edit had put aside is called so."""
    assert [is_aside(name) for name in (ASIDE, TEMPORARY, "a.old.liontool-tmp")] == [1, 0, 0]


@pytest.mark.parametrize("steps", [1, 2])
def test_an_edit_killed_between_its_two_renames(tmp_path: Path, steps: int) -> None:
    """Neither lost nor silently older: the checkpoint that the edit had put aside is there again.

    The new one is whole too, but the edit did not happen.
    """
    left(tmp_path, steps)
    newest = tmp_path / step_name(steps)
    before = everything(newest)
    newest.rename(tmp_path / ASIDE)
    saved(tmp_path, steps).rename(tmp_path / TEMPORARY)
    assert outlook(tmp_path).answer == RESUME
    said: list[str] = []
    run = begun(tmp_path, said)
    let_go(run)
    assert run.resumed_from == steps
    assert everything(newest) == before
    assert f"{ASIDE} was left by what was killed; it is {newest.name} again" in said
    assert not list(tmp_path.glob(".*"))


def test_a_save_killed_before_its_last_rename(tmp_path: Path) -> None:
    """A later complete checkpoint is used, though nobody had been told of it."""
    left(tmp_path, 2)
    (tmp_path / step_name(2)).rename(tmp_path / TEMPORARY)
    run = begun(tmp_path, [])
    let_go(run)
    assert (run.resumed_from, run.saved_step) == (2, 2)


def test_damaged_ones_below_it(tmp_path: Path) -> None:
    """A checkpoint that was found damaged before the newer one had its name is named and moved."""
    left(tmp_path, 3)
    (tmp_path / step_name(3)).rename(tmp_path / TEMPORARY)
    flipped(tmp_path / step_name(2) / TENSORS)
    said: list[str] = []
    run = begun(tmp_path, said)
    let_go(run)
    assert run.resumed_from == 3
    assert (tmp_path / "quarantine" / step_name(2)).is_dir()
    assert any(line.startswith(f"{step_name(2)} was refused and moved to") for line in said)


@pytest.mark.parametrize("name", [TEMPORARY, ASIDE])
def test_nothing_else_is_there(tmp_path: Path, name: str) -> None:
    """With the only checkpoint under a hidden name nothing begins at step 0."""
    saved(tmp_path, 100).rename(tmp_path / name)
    assert not choose(tmp_path).chosen
    found = outlook(tmp_path)
    assert (found.answer, found.leftovers) == (RESUME, ())
    assert found.to_dict()["checkpoint"]["step"] == 100
    assert bring_back(choose(tmp_path)) == {tmp_path / name: tmp_path / step_name(100)}
    assert choose(tmp_path).chosen == tmp_path / step_name(100)


def test_while_the_others_are_damaged(tmp_path: Path) -> None:
    """The best there is, also if it is older than the damaged ones, which are then put aside."""
    damaged(tmp_path, 300)
    saved(tmp_path, 200).rename(tmp_path / TEMPORARY)
    assert outlook(tmp_path).answer == RESUME
    plan = repair(tmp_path, dry_run=True)
    assert [path.name for path in plan.returned] == [step_name(200)]
    done = repair(tmp_path)
    assert (done.chosen, done.returned, done.leftovers) == (
        tmp_path / step_name(200), plan.returned, ()
    )  # fmt: skip
    assert [path.name for path in done.moved] == [step_name(300)]


def test_on_its_way_out(tmp_path: Path) -> None:
    """A checkpoint older than the one in use was being removed, unless an edit put it aside."""
    saved(tmp_path, 300)
    saved(tmp_path, 200).rename(tmp_path / TEMPORARY)
    assert returning(choose(tmp_path)) == {}
    (tmp_path / TEMPORARY).rename(tmp_path / ASIDE)
    assert returning(choose(tmp_path)) == {tmp_path / ASIDE: tmp_path / step_name(200)}


def test_the_name_is_there(tmp_path: Path) -> None:
    """After an exchange the hidden one is the old one, and no longer wanted."""
    saved(tmp_path, 300)
    saved(tmp_path / "other", 300).rename(tmp_path / ASIDE)
    assert returning(choose(tmp_path)) == {}


@pytest.mark.parametrize("broken", ["no COMMIT", "a bit"])
def test_an_unfinished_save(tmp_path: Path, broken: str) -> None:
    """What was never a whole checkpoint is none: a run that was never saved begins."""
    folder = saved(tmp_path, 100) if broken == "no COMMIT" else damaged(tmp_path, 100)
    if broken == "no COMMIT":
        (folder / COMMIT).unlink()
    folder.rename(tmp_path / TEMPORARY)
    assert outlook(tmp_path).answer == FRESH
    run = begun(tmp_path, [])
    let_go(run)
    assert run.resumed_from is None
    assert not list(tmp_path.glob(".*"))


def test_damaged_after_it_was_put_aside(tmp_path: Path) -> None:
    """It was saved once, so it is named as damaged, and nothing begins at step 0."""
    damaged(tmp_path, 100).rename(tmp_path / ASIDE)
    with pytest.raises(ResumeError, match=r"no checkpoint in it is good \(step-0000000100: state"):
        begun(tmp_path, [])
    assert outlook(tmp_path).answer == NOTHING_GOOD


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an edit put aside and cannot be read is an error; a killed save was never announced."""
    saved(tmp_path, 100).rename(tmp_path / ASIDE)
    choice = choose(tmp_path)

    def failing(*_: object, **__: object) -> int:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(SYSTEM, "open", failing)
    with pytest.raises(ReadError, match=r"\.old\.liontool-tmp: cannot be read: Input/output"):
        returning(choice)
    (tmp_path / ASIDE).rename(tmp_path / TEMPORARY)
    assert returning(choice) == {}


def test_cannot_be_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system that refuses is one line with the way out; nothing begins at step 0."""
    saved(tmp_path, 100).rename(tmp_path / TEMPORARY)

    def failing(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(SYSTEM, "rename", failing)
    message = r"is a checkpoint that lacks its name: Permission denied; rename it to step-0+100"
    with pytest.raises(PublishError, match=message):
        begun(tmp_path, [])


def test_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed in any call, the next start finds it."""
    for at in range(80):
        run = tmp_path / str(at)
        saved(run, 100).rename(run / ASIDE)
        with monkeypatch.context() as patch:
            death = Death(patch, at)
            try:
                bring_back(choose(run))
            except Killed:
                assert death.struck
        bring_back(choose(run))
        assert choose(run).chosen == run / step_name(100)
        if not death.struck:
            break
    assert at > 10

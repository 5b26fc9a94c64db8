"""A start among damaged checkpoints and leftovers that it cannot move or delete, or may not yet."""

from __future__ import annotations

import errno
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.checkpoint.run_folder.checking import check
from liontool.checkpoint.run_folder.choosing import choose
from liontool.checkpoint.run_folder.commit import Commit
from liontool.checkpoint.run_folder.layout import COMMIT, step_name
from liontool.checkpoint.system import SYSTEM
from liontool.errors import PublishError, ResumeError
from support.checkpoints import TENSORS, everything, flipped
from support.small_runs import begun, left, let_go, trained

LEFT = (".12-0123abcd.liontool-tmp", ".13-0123abcd.liontool-tmp")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three checkpoints, the newest damaged."""
    folder = tmp_path / "run"
    left(folder, 3)
    flipped(folder / step_name(3) / TENSORS)
    return folder


@pytest.fixture
def said() -> list[str]:
    return []


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_no_quarantine(run: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk too full for quarantine/: the run goes on from the undamaged one, and says so."""
    monkeypatch.setattr(SYSTEM, "mkdir", full)
    made = begun(run, said)
    let_go(made)
    assert (made.resumed_from, made.saved_step) == (2, 2)
    assert f"{step_name(3)} was refused: state-0.safetensors is damaged" in " ".join(said)
    assert any("cannot be moved there: No space left on device" in line for line in said)


def test_the_damaged_step_is_reached_again(
    run: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The save that needs the name of the damaged one moves it aside by then."""
    with monkeypatch.context() as patch:
        patch.setattr(SYSTEM, "mkdir", full)
        made = begun(run, said)
    let_go(trained(made, 2))
    assert made.saved_step == 4
    assert check(run / step_name(3)).step == 3
    moved = run / "quarantine" / step_name(3)
    assert moved.is_dir()
    assert f"{step_name(3)} is damaged and was moved to {moved}" in said


def test_it_still_cannot_be_moved(
    run: Path, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then that one save fails with the line, and the next step is saved."""
    made = begun_without_room(run, said, monkeypatch)
    with pytest.raises(PublishError, match="damaged checkpoints cannot be moved there: No space"):
        trained(made, 1)
    monkeypatch.undo()
    let_go(trained(made, 1))
    assert made.saved_step == 4


def begun_without_room(run: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(SYSTEM, "mkdir", full)
    return begun(run, said)


def test_a_whole_one_is_not_moved(run: Path, said: list[str]) -> None:
    """What was copied in and is whole is in the way, and stays."""
    made = begun(run, said)
    shutil.copytree(run / step_name(2), run / step_name(3))
    shutil.rmtree(run / "quarantine")
    resealed_as(run / step_name(3), 3)
    with pytest.raises(PublishError, match="is there already; move it out"):
        trained(made, 1)
    let_go(made)
    assert check(run / step_name(3)).step == 3


def resealed_as(folder: Path, step: int) -> None:
    commit = Commit.decoded((folder / COMMIT).read_bytes())
    (folder / COMMIT).write_bytes(replace(commit, step=step).encoded())


def test_a_leftover_that_stays(run: Path, said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be deleted is a line, and the others go."""
    for name in LEFT:
        (run / name).mkdir()
    real = SYSTEM.rmtree

    def refusing(path: Any) -> None:
        if Path(path).name == LEFT[0]:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES))
        real(path)

    monkeypatch.setattr(SYSTEM, "rmtree", refusing)
    made = begun(run, said)
    let_go(made)
    assert made.resumed_from == 2
    assert [path.name for path in run.glob(".*")] == [LEFT[0]]
    assert any("was left by a save that was killed, and cannot be deleted" in one for one in said)


def test_nothing_good(run: Path, said: list[str]) -> None:
    """While nothing is good nothing is deleted."""
    for step in (1, 2):
        flipped(run / step_name(step) / TENSORS)
    (run / LEFT[0]).mkdir()
    (run / LEFT[0] / "state-0.safetensors").write_bytes(b"half")
    before = everything(run)
    with pytest.raises(ResumeError, match="no checkpoint in it is good"):
        begun(run, said)
    assert everything(run).keys() == before.keys()


def test_another_run(run: Path, said: list[str]) -> None:
    """A start that is refused because it does not fit deletes and moves nothing."""
    (run / LEFT[0]).mkdir()
    before = everything(run)
    with pytest.raises(ResumeError, match="critic"):
        begun(run, said, critic=torch.nn.Linear(1, 1))
    assert everything(run).keys() == before.keys()
    assert choose(run).refused


def test_fresh(tmp_path: Path, said: list[str]) -> None:
    """What the first save left goes when the run begins."""
    folder = tmp_path / "fresh"
    (folder / LEFT[0]).mkdir(parents=True)
    let_go(begun(folder, said))
    assert os.listdir(folder) == ["run.lock"]

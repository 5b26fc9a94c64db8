"""`liontool runs prune` and `liontool runs repair`: what they print, and how they end."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.run_folder.layout import step_name
from liontool.checkpoint.run_folder.lock import locked
from liontool.checkpoint.system import SYSTEM
from support.checkpoints import damaged, everything, saved

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with five good checkpoints, the newest of them damaged."""
    for step in (100, 200, 300, 400):
        saved(tmp_path, step, metric=1 / step)
    damaged(tmp_path, 500)
    return tmp_path


def _names(run: Path) -> list[str]:
    return sorted(name for name in os.listdir(run) if name.startswith("step-"))


# --- prune --------------------------------------------------------------------------------------


def test_prune(liontool: Run, run: Path) -> None:
    """What was removed and what is kept; damaged ones are neither."""
    code, out, err = liontool("runs", "prune", str(run), "--last", "2")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"{run}: 2 checkpoints removed, ")
    assert f"  removed  {step_name(100)}, {step_name(200)}" in lines
    assert f"  kept     {step_name(400)}, {step_name(300)}" in lines
    assert "Damaged: not counted, and left for `liontool runs repair`" in lines
    assert _names(run) == [step_name(step) for step in (300, 400, 500)]


def test_prune_dry_run(liontool: Run, run: Path) -> None:
    """A dry run touches nothing."""
    before = everything(run)
    code, out, _ = liontool("runs", "prune", str(run), "--last", "2", "--dry-run")
    assert code == 0
    assert ": 2 checkpoints would be removed, " in out
    assert f"  to remove  {step_name(100)}, {step_name(200)}" in out
    assert everything(run) == before


def test_prune_options(liontool: Run, run: Path) -> None:
    """Three wishes; one that is met is enough to stay."""
    arguments = ("--last", "2", "--every", "200", "--best", "1", "--json")
    code, out, _ = liontool("runs", "prune", str(run), *arguments)
    assert code == 0
    assert json.loads(out)["removed"] == [step_name(100)]


def test_prune_nothing(liontool: Run, run: Path) -> None:
    """The default keeps three."""
    liontool("runs", "prune", str(run))
    _, out, _ = liontool("runs", "prune", str(run))
    assert out.startswith(f"{run}: nothing to remove\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--last", "x"), "--last must be a whole number such as 20, got 'x'"),
        (("--every", "-1"), "--every must be a whole number such as 20, got '-1'"),
        (("--best", "1.5"), "--best must be a whole number such as 20, got '1.5'"),
        (("--last", "0"), "keep: last must be a whole number from 1, got 0"),
    ],
)
def test_prune_wrong_number(
    liontool: Run, run: Path, arguments: tuple[str, str], message: str
) -> None:
    """What is no number of checkpoints is refused, and nothing is removed."""
    code, out, err = liontool("runs", "prune", str(run), *arguments)
    assert (code, out, err) == (2, "", f"liontool: error: {message}\n")
    assert len(_names(run)) == 5


def test_prune_failure(liontool: Run, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be removed is said, and the exit code is 1."""

    def refusing(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(SYSTEM, "rename", refusing)
    code, out, _ = liontool("runs", "prune", str(run))
    assert code == 1
    assert "cannot be removed: Permission denied" in " ".join(out.split())
    assert "0 checkpoints removed" in out


# --- repair -------------------------------------------------------------------------------------


def test_repair(liontool: Run, run: Path) -> None:
    """What was moved where, why, and what was deleted."""
    (run / ".12-0123abcd.liontool-tmp").mkdir()
    code, out, err = liontool("runs", "repair", str(run))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (f"{run}: 1 damaged checkpoint moved into quarantine/, 1 leftover deleted")
    assert f"  newest good  {step_name(400)}" in lines
    assert f"  moved to     quarantine/{step_name(500)}" in lines
    assert f"  x {step_name(500)}: state-0.safetensors is damaged" in out
    _, out, _ = liontool("runs", "repair", str(run))
    assert out.startswith(f"{run}: nothing to repair\n")


def test_repair_dry_run(liontool: Run, run: Path) -> None:
    """A dry run touches nothing."""
    before = everything(run)
    code, out, _ = liontool("runs", "repair", str(run), "--dry-run")
    assert code == 0
    assert out.startswith(f"{run}: to do: 1 damaged checkpoint moved into quarantine/\n")
    assert everything(run) == before


def test_repair_of_nothing_good(liontool: Run, tmp_path: Path) -> None:
    """Where nothing is good nothing is touched, and the exit code is 1."""
    damaged(tmp_path, 100)
    code, out, _ = liontool("runs", "repair", str(tmp_path))
    assert code == 1
    assert "no checkpoint is good, so nothing was touched; put a copy back" in out
    assert _names(tmp_path) == [step_name(100)]


def test_repair_json(liontool: Run, run: Path) -> None:
    """The same as one JSON document."""
    _, out, _ = liontool("runs", "repair", str(run), "--json")
    found = json.loads(out)
    assert found["moved"] == [f"quarantine/{step_name(500)}"]
    assert found["damaged"][0]["name"] == step_name(500)


# --- both ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["prune", "repair"])
def test_in_use(liontool: Run, run: Path, name: str) -> None:
    """Refused while a run has the folder; a dry run says who has it."""
    with locked(run):
        before = everything(run)
        code, out, err = liontool("runs", name, str(run))
        assert (code, out) == (2, "")
        assert "this process trains in it already" in err
        code, out, _ = liontool("runs", name, str(run), "--dry-run")
        assert code == 0
        assert f"! in use by process {os.getpid()} (" in out
        assert everything(run) == before


@pytest.mark.parametrize("name", ["prune", "repair"])
def test_not_there(liontool: Run, tmp_path: Path, name: str) -> None:
    """A folder that is not there is not made."""
    code, _, err = liontool("runs", name, str(tmp_path / "nowhere"))
    assert code == 2
    assert err == f"liontool: error: {tmp_path / 'nowhere'}: no such folder\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("arguments", [["prune"], ["repair"], ["prune", "--dry-run"]])
def test_no_run(liontool: Run, tmp_path: Path, arguments: list[str]) -> None:
    """A folder in which nobody ever trained is an error, and no lock is left there."""
    (tmp_path / "photo.png").write_bytes(b"")
    code, out, err = liontool("runs", *arguments, str(tmp_path))
    assert (code, out) == (2, "")
    said = "is not the folder of a run: no checkpoint was ever saved in it"
    assert err == f"liontool: error: {tmp_path}: {said}\n"
    assert os.listdir(tmp_path) == ["photo.png"]


@pytest.mark.parametrize("name", ["prune", "repair"])
def test_nothing_saved_yet(liontool: Run, tmp_path: Path, name: str) -> None:
    """Where a run was begun and nothing was saved there is nothing to do."""
    with locked(tmp_path):
        pass
    code, out, _ = liontool("runs", name, str(tmp_path))
    assert code == 0
    assert out.startswith(f"{tmp_path}: nothing to re")


def test_alone(liontool: Run) -> None:
    """Without a word after it, it says what there is."""
    code, out, _ = liontool("runs")
    assert code == 0
    assert "prune" in out
    assert "repair" in out
    code, _, err = liontool("runs", "bury")
    assert (code, err) == (2, "liontool: error: No such command 'bury'; see liontool runs --help\n")

"""`liontool resume`: what it prints, how it ends, and that it touches nothing."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from liontool.checkpoint.run_folder.layout import COMMIT, FACTS, step_name
from liontool.checkpoint.run_folder.lock import locked
from support.checkpoints import damaged, everything, run_facts, saved
from support.faults import Faults

Run = Callable[..., Any]


def test_usable(liontool: Run, tmp_path: Path) -> None:
    """The step of the checkpoint comes first; exit code 0."""
    saved(tmp_path, 1200, metric=0.25)
    saved(tmp_path, 600)
    code, out, err = liontool("resume", str(tmp_path))
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"{tmp_path}: a start goes on at step 1,200"
    assert f"  checkpoint  {step_name(1200)}, every byte as it was committed" in lines
    assert "in epoch 12" in out
    assert "  metric      0.25" in lines
    told = "exact, on the machine and with the settings that saved it"
    assert f"  level       {told}" in lines
    assert f"  older       {step_name(600)}" in lines
    assert "Refused" not in out


def test_refused(liontool: Run, tmp_path: Path) -> None:
    """Each checkpoint that is refused is named with its reason, and nothing is moved."""
    saved(tmp_path, 100, files={FACTS: run_facts(level="state-exact", reasons=["no seeds"])})
    damaged(tmp_path, 200)
    (saved(tmp_path, 300) / COMMIT).unlink()
    saved(tmp_path / "quarantine", 50)
    (tmp_path / ".12-0123abcd.liontool-tmp").mkdir()
    before = everything(tmp_path)
    code, out, _ = liontool("resume", str(tmp_path))
    assert code == 0
    words = " ".join(out.split())
    assert "Why not exact - no seeds" in words
    assert f"x {step_name(300)}: has no COMMIT: it was never finished, or the file was" in words
    assert f"x {step_name(200)}: state-0.safetensors is damaged: its bytes are not" in words
    assert f"quarantined {step_name(50)} leftovers .12-0123abcd.liontool-tmp" in words
    assert everything(tmp_path) == before


def test_nothing_good(liontool: Run, tmp_path: Path) -> None:
    """Where nothing is good the exit code is 1, and the reasons are there all the same."""
    damaged(tmp_path, 100)
    code, out, _ = liontool("resume", str(tmp_path))
    assert code == 1
    assert "no checkpoint is good: a start would refuse; put a copy back" in out
    assert f"x {step_name(100)}: state-0.safetensors is damaged" in out


def test_many_refused(liontool: Run, tmp_path: Path) -> None:
    """Of many the newest are shown."""
    for step in range(1, 31):
        (tmp_path / step_name(step)).mkdir()
    code, out, _ = liontool("resume", str(tmp_path))
    assert code == 1
    assert out.count("has no COMMIT") == 20
    assert "- and 10 more, all of them with --json" in out


def test_fresh(liontool: Run, tmp_path: Path) -> None:
    """Where nothing was ever saved there is nothing to resume."""
    code, out, _ = liontool("resume", str(tmp_path))
    assert (code, out) == (1, f"{tmp_path}: holds no checkpoint: a start begins at step 0\n")


def test_renamed(liontool: Run, tmp_path: Path) -> None:
    """A checkpoint under a longer name is no fresh start, and is named."""
    saved(tmp_path, 100).rename(tmp_path / f"{step_name(100)}.orig")
    code, out, _ = liontool("resume", str(tmp_path))
    assert code == 1
    assert "no checkpoint is good: a start would refuse" in out
    assert f"  renamed  {step_name(100)}.orig" in out


def test_in_use(liontool: Run, tmp_path: Path) -> None:
    """Who has the folder is said; a look is never kept out."""
    saved(tmp_path, 100)
    with locked(tmp_path):
        code, out, _ = liontool("resume", str(tmp_path))
    assert code == 0
    assert f"! in use by process {os.getpid()} (" in out


def test_json(liontool: Run, tmp_path: Path) -> None:
    """The same as one JSON document."""
    saved(tmp_path, 100)
    code, out, _ = liontool("resume", str(tmp_path), "--json")
    found = json.loads(out)
    assert (code, found["answer"], found["checkpoint"]["step"]) == (0, "resume", 100)


def test_not_there(liontool: Run, tmp_path: Path) -> None:
    """A folder that is not there is an error: one line, exit code 2."""
    code, out, err = liontool("resume", str(tmp_path / "nowhere"))
    assert (code, out) == (2, "")
    assert err == f"liontool: error: {tmp_path / 'nowhere'}: no such folder\n"


def test_one_checkpoint(liontool: Run, tmp_path: Path) -> None:
    """Given one checkpoint it says what to give."""
    code, _, err = liontool("resume", str(saved(tmp_path, 100)))
    assert code == 2
    assert f"is one checkpoint; give the folder of the run: {tmp_path}" in err


def test_unreadable(liontool: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the system does not read is no bad checkpoint: exit code 2."""
    saved(tmp_path, 100)
    saved(tmp_path, 200)
    Faults(monkeypatch, lambda: OSError(errno.EIO, os.strerror(errno.EIO)), 3)
    code, out, err = liontool("resume", str(tmp_path))
    assert (code, out) == (2, "")
    assert "cannot be read: Input/output error; that is no fault of the checkpoint" in err


def test_evil_names(liontool: Run, tmp_path: Path, evil: tuple[str, str]) -> None:
    """Names in a checkpoint cannot give orders to the terminal."""
    saved(tmp_path, 100, files={FACTS: run_facts(level="", reasons=[evil[0]])})
    (saved(tmp_path, 200) / evil[0]).write_bytes(b"")
    _, out, _ = liontool("resume", str(tmp_path))
    assert out.count(evil[1]) == 2
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "words", [["resume"], ["runs", "repair"], ["runs", "prune", "--last", "1"]], ids=" ".join
)
def test_no_torch(tmp_path: Path, words: list[str]) -> None:
    """Looking after a run needs neither torch nor numpy."""
    for step in (100, 200, 300):
        saved(tmp_path, step)
    damaged(tmp_path, 400)
    code = (
        "import sys; from liontool.cli import main; code = main(sys.argv[1:]); "
        "print(code, sorted({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, *words, str(tmp_path)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert result.stdout.splitlines()[-1] == "0 []"

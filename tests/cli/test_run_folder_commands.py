"""The commands on the folder of a run: what they print, and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.run_folders import saved_run

Command = Callable[..., Any]
NEW = "step-0000000009"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two checkpoints of a run with a scheduler and a second optimizer."""
    return saved_run(
        tmp_path / "exp",
        steps=(5, 9),
        extras=True,
        scheduler=lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 50),
    )


def damage(run: Path) -> None:
    """One bit of the newest checkpoint."""
    path = run / NEW / "state-0.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("framework", [[], ["--framework", "run"]])
def test_inspect(liontool: Command, run: Path, framework: list[str]) -> None:
    """Which checkpoint, what is in it, and that there is another."""
    code, out, err = liontool("inspect", str(run), *framework)
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == str(run / NEW)
    assert "framework  run" in out
    assert "Optimizer: AdamW (optimizer)" in out
    assert "Optimizer: AdamW (extras.critic_optimizer)" in out
    assert "state-0.safetensors   run state" in out
    assert "the newest good checkpoint of the run; 1 older" in out
    assert "by position" not in out


@pytest.mark.parametrize(
    "words", [["--tensors"], ["--tree"], ["--stats"], ["--filter", "*.weight"], ["--json"],
              ["--stats", "--json"], ["--tensors", "--json"], ["--field", "groups.0.lr",
              "--optimizer", "optimizer"], ["--assert", "step == 9"]], ids=" ".join
)  # fmt: skip
def test_every_look(liontool: Command, run: Path, words: list[str]) -> None:
    """Each way to look takes the folder of a run, and the checkpoint in it gives the same."""
    code, out, _ = liontool("inspect", str(run), *words)
    assert code == 0
    again = liontool("inspect", str(run / NEW), *words)
    assert again.code == 0
    if "--json" not in words:
        assert again.out == out


def test_page(liontool: Command, run: Path, tmp_path: Path) -> None:
    """The page is written."""
    assert liontool("inspect", str(run), "--html", str(tmp_path / "page.html")).code == 0
    assert "CosineAnnealingLR" in (tmp_path / "page.html").read_text()


def test_verify(liontool: Command, run: Path) -> None:
    """A good run ends in 0; one bit ends in 1, and the file is named."""
    code, out, _ = liontool("verify", str(run))
    assert (code, out.splitlines()[0]) == (0, f"{run / NEW}: nothing wrong")
    damage(run)
    code, out, _ = liontool("verify", str(run))
    assert code == 1
    assert "state-0.safetensors: its bytes are not those that were committed" in out


def test_convert(liontool: Command, run: Path) -> None:
    """A run of its own, and the code that opens it."""
    code, out, err = liontool("convert", str(run), "--lr-ratio", "3")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith(f"Converted {run / NEW} to")
    assert f"run = Run('{run}.lion', model=model, optimizer=optimizer" in out
    code, out, _ = liontool("verify", f"{run}.lion", "--against", str(run), "--json")
    assert code == 0
    assert json.loads(out)["proof"]["proved"] is True


def test_convert_of_a_damaged_run(liontool: Command, run: Path) -> None:
    """The newest good checkpoint is taken, and the other one is named."""
    damage(run)
    code, out, _ = liontool("convert", str(run), "--lr-ratio", "3")
    assert code == 0
    assert "is converted in its place" in " ".join(out.split())
    code, _, err = liontool("convert", str(run / NEW), "--lr-ratio", "3")
    assert (code, err.count("\n")) == (2, 1)
    assert "is damaged" in err


def test_diff(liontool: Command, run: Path) -> None:
    """A run and its newest checkpoint are the same; two checkpoints are not."""
    assert liontool("diff", str(run), str(run / NEW)).code == 0
    code, out, _ = liontool("diff", str(run / "step-0000000005"), str(run))
    assert code == 1
    assert out.startswith("differ: step")


def test_edit(liontool: Command, run: Path) -> None:
    """A copy beside the run, and the checkpoint itself with --in-place."""
    code, out, _ = liontool("edit", str(run), "lr=x0.5")
    assert (code, f"to {run}.edited" in " ".join(out.split())) == (0, True)
    code, out, _ = liontool("edit", str(run), "lr=x0.5", "--in-place", "--json")
    assert json.loads(out)["output"] == str(run / NEW)
    assert liontool("verify", str(run)).code == 0
    code, _, err = liontool("edit", str(run / NEW / "run.json"), "lr=x0.5", "--in-place")
    assert (code, "edit the whole" in err) == (2, True)


@pytest.mark.parametrize("name", [f"{NEW}.1", f"{NEW}.old"])
def test_only_a_quarantine(liontool: Command, run: Path, name: str) -> None:
    """A run of which all is in quarantine/ is one, whatever number a checkpoint got there."""
    (run / "quarantine").mkdir()
    for path in run.glob("step-*"):
        path.rename(run / "quarantine" / path.name.replace(NEW, name))
    (run / "quarantine" / "step-0000000005").rename(run.parent / "elsewhere")
    code, _, err = liontool("inspect", str(run))
    assert code == 2
    assert "no checkpoint in it is good (1 in quarantine/)" in err

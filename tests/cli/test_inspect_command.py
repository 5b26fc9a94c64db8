"""`liontool inspect`: what it prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool import wording

Run = Callable[..., Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A plain checkpoint with two groups and a scheduler, after one step."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=3e-4, weight_decay=0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    scheduler.step()
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    torch.save({name: part.state_dict() for name, part in parts.items()}, tmp_path / "a.ckpt")
    return tmp_path / "a.ckpt"


def _cells(out: str, start: str) -> list[str]:
    (line,) = (line for line in out.splitlines() if line.startswith(f"  {start}"))
    return re.split(r"  +", line.strip())


def test_first_screen(liontool: Run, checkpoint: Path) -> None:
    """Container, framework, step, tensors, groups, scheduler and memory are on the screen."""
    code, out, err = liontool("inspect", str(checkpoint))
    assert (code, err) == (0, "")
    assert _cells(out, "container")[1].startswith("torch zip, ")
    assert _cells(out, "framework") == ["framework", "plain"]
    assert _cells(out, "step") == ["step", "1"]
    assert _cells(out, "tensors") == ["tensors", "8, 32 elements, 128 B (float32)"]
    assert _cells(out, "memory") == ["memory", "80 B under AdamW, 40 B under Lion"]
    assert _cells(out, "lr ") == ["lr", "0.0003"]
    assert _cells(out, "moments") == ["moments", "float32"]
    assert _cells(out, "0 ") == ["0", "1", "8", "0.1", "68 B"]
    assert _cells(out, "1 ") == ["1", "1", "2", "0", "20 B"]
    assert _cells(out, "StepLR")[:2] == ["StepLR", "1"]
    assert max(map(len, out.splitlines())) <= 80


def test_json(liontool: Run, checkpoint: Path) -> None:
    """--json prints the summary as one document."""
    code, out, err = liontool("inspect", str(checkpoint), "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["optimizers"][0]["groups"][0]["elements"] == 8


def test_weights_only(liontool: Run, tmp_path: Path) -> None:
    """A file without an optimizer is shown, with the reason, and the exit code is 0."""
    torch.save({"weight": torch.ones(2, 3)}, tmp_path / "weights.pt")
    code, out, err = liontool("inspect", str(tmp_path / "weights.pt"))
    assert (code, err) == (0, "")
    assert _cells(out, "optimizer ") == ["optimizer", "none found"]
    assert _cells(out, "tensors ") == ["tensors", "1, 6 elements, 24 B (float32)"]


def test_what_is_set_is_shown(liontool: Run, tmp_path: Path) -> None:
    """Hyperparameters of other optimizers have their place, those left unset have none."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(4))], lr=0.1, momentum=0.9)
    torch.save(optimizer.state_dict(), tmp_path / "sgd.pt")
    _, out, _ = liontool("inspect", str(tmp_path / "sgd.pt"))
    assert _cells(out, "momentum") == ["momentum", "0.9"]
    assert "nesterov" not in out
    assert "foreach" not in out


def test_damaged_file(liontool: Run, checkpoint: Path) -> None:
    """A truncated file is one line and exit code 2."""
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    code, out, err = liontool("inspect", str(checkpoint))
    assert (code, out) == (2, "")
    assert err.startswith("liontool: error: ")
    assert "a.ckpt" in err
    assert err.count("\n") == 1


def test_hostile_names(liontool: Run, tmp_path: Path, evil: tuple[str, str]) -> None:
    """Names from a file reach the terminal escaped only."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))])
    torch.save({evil[0]: optimizer.state_dict()}, tmp_path / "evil.pt")
    code, out, _ = liontool("inspect", str(tmp_path / "evil.pt"))
    assert code == 0
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert evil[1] in out


def test_folder_lists_its_files(liontool: Run, tmp_path: Path) -> None:
    """In a folder each file that can hold tensors has a row."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(4))])
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 5)
    folder = tmp_path / "checkpoint-1"
    folder.mkdir()
    (folder / "trainer_state.json").write_text('{"global_step": 1}')
    torch.save(optimizer.state_dict(), folder / "optimizer.pt")
    torch.save(scheduler.state_dict(), folder / "scheduler.pt")
    (folder / "damaged.bin").write_bytes(b"PK\x03\x04")
    code, out, _ = liontool("inspect", str(folder))
    assert code == 0
    size = sum(path.stat().st_size for path in folder.iterdir())
    assert f"folder, 4 files, {wording.size(size)}" in out
    assert "Files that may hold tensors" in out
    assert _cells(out, "framework") == ["framework", "hf-trainer"]
    assert _cells(out, "optimizer.pt")[:3] == ["optimizer.pt", "torch zip", "0"]
    assert _cells(out, "damaged.bin")[1] == "unreadable"
    assert "! " in out


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--field", "groups.0.lr"),
        ("--field", "files.0.tensors"),
        ("--tensors",),
        ("--stats",),
        ("--html", "{folder}/page.html", "--force"),
    ],
)
def test_one_of_several_optimizers(liontool: Run, tmp_path: Path, options: tuple[str, ...]) -> None:
    """The option that messages speak of is there, for every way of looking."""
    weight = torch.nn.Parameter(torch.ones(3))
    optimizers = [torch.optim.AdamW([weight], lr=lr) for lr in (0.1, 0.25)]
    weight.sum().backward()
    for optimizer in optimizers:
        optimizer.step()
    states = {name: one.state_dict() for name, one in zip("ab", optimizers, strict=True)}
    torch.save(states, tmp_path / "two.pt")
    words = [word.format(folder=tmp_path) for word in options]
    code, out, err = liontool("inspect", str(tmp_path / "two.pt"), "--optimizer", "b", *words)
    assert code == 0, err
    if words == ["--field", "groups.0.lr"]:
        assert out == "0.25\n"
    code, out, err = liontool("inspect", str(tmp_path / "two.pt"), "--optimizer", "x", *words)
    assert code == 2
    assert "--optimizer x leads nowhere" in err

"""`liontool verify`: what it prints, and how it ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from support.finding_files import changed_bytes, entry, pickled, safetensors, torch_file

Run = Callable[..., Any]


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """An AdamW after one step, with its model."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.randn(3, 4)).sum().backward()
    optimizer.step()
    parts = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    return torch_file(tmp_path / "adamw.ckpt", parts)


def test_nothing_wrong(liontool: Run, checkpoint: Path) -> None:
    """A good file is one line, what was looked at, and exit code 0."""
    code, out, err = liontool("verify", str(checkpoint))
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == f"{checkpoint}: nothing wrong"
    assert "  looked at  1 file, 8 tensors, 128 B of values read" in out


def test_errors(liontool: Run, checkpoint: Path) -> None:
    """Errors are listed with their ids, and the exit code is 1."""
    changed_bytes(checkpoint, lambda data: data + b"xyz")
    code, out, err = liontool("verify", str(checkpoint))
    assert (code, err) == (1, "")
    assert out.startswith(f"{checkpoint}: 1 error\n")
    assert "  x 3 bytes follow the end of the zip file (trailing-bytes)" in out
    assert all(len(line) <= 80 for line in out.splitlines()[1:])


def test_strict(liontool: Run, tmp_path: Path) -> None:
    """Warnings end in 1 only with --strict."""
    path = str(safetensors(tmp_path / "a.safetensors", {"../w": entry(0, 8)}))
    code, out, _ = liontool("verify", path)
    assert code == 0
    assert out.startswith(f"{path}: 1 warning\n")
    assert "  ! ../w: " in out
    assert liontool("verify", path, "--strict").code == 1


def test_json(liontool: Run, checkpoint: Path) -> None:
    """--json prints all findings as one document, with the same exit code."""
    changed_bytes(checkpoint, lambda data: data + b"xyz")
    code, out, err = liontool("verify", str(checkpoint), "--json")
    assert (code, err) == (1, "")
    document = json.loads(out)
    assert (document["schema"], document["errors"]) == (1, 1)
    assert document["findings"][0]["id"] == "trailing-bytes"


def test_no_checkpoint(liontool: Run, tmp_path: Path) -> None:
    """What is no checkpoint at all is one line and exit code 2."""
    (tmp_path / "a.txt").write_text("hello")
    code, out, err = liontool("verify", str(tmp_path / "a.txt"))
    assert (code, out) == (2, "")
    assert err.startswith("liontool: error: ")
    assert err.count("\n") == 1


def test_proof(liontool: Run, checkpoint: Path) -> None:
    """After a conversion one line says what was proved, or that it was not."""
    assert liontool("convert", str(checkpoint), "--lr-ratio", "3").code == 0
    output = checkpoint.with_name("adamw.lion.ckpt")
    code, out, _ = liontool("verify", str(output), "--against", str(checkpoint))
    assert code == 0
    line = "4 tensors bit-identical, 2 momenta copied, 4 of AdamW's dropped"
    assert f"proved: {line}, learning rates divided by 3" in out
    torch_file(checkpoint, {"optimizer": torch.load(checkpoint)["optimizer"]})
    code, out, _ = liontool("verify", str(output), "--against", str(checkpoint))
    assert code == 1
    assert "not proved: " in out


def test_comparison(liontool: Run, checkpoint: Path) -> None:
    """Without a record of a conversion both are compared."""
    _, out, _ = liontool("verify", str(checkpoint), "--against", str(checkpoint))
    assert f"compared with {checkpoint}: 8 tensors bit-identical, 0 changed" in out


def test_code(liontool: Run, tmp_path: Path) -> None:
    """--code lists names by class, and what loading would do."""
    path = tmp_path / "evil.pt"
    path.write_bytes(pickled(b"cos\nsystem\n(U\x01xtR."))
    code, out, _ = liontool("verify", str(path), "--code")
    assert code == 1
    assert "  dangerous           os.system" in out
    assert "weights_only=True   refuses: names os.system" in out
    assert "weights_only=False  runs code: imports 1 name" in out
    (tmp_path / "a.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")
    assert (
        "there are no pickles" in liontool("verify", str(tmp_path / "a.safetensors"), "--code").out
    )


def test_many_findings(liontool: Run, tmp_path: Path) -> None:
    """Of findings that are alike the first are shown, the rest counted."""
    header = {f"../{i}": entry(4 * i, 4 * i + 4) for i in range(15)}
    path = safetensors(tmp_path / "a.safetensors", header, 60)
    out = liontool("verify", str(path)).out
    assert out.count("(path-name)") == 11
    assert "and 5 more like it (path-name), all of them with --json" in out


def test_hostile_names(liontool: Run, tmp_path: Path, evil: tuple[str, str]) -> None:
    """Names from a file reach the terminal escaped only."""
    path = safetensors(tmp_path / "a.safetensors", {evil[0]: entry(0, 4)})
    code, out, _ = liontool("verify", str(path))
    assert code == 1
    assert "\x1b" not in out
    assert "\u202e" not in out
    assert evil[1] in out


def test_one_of_several_optimizers(liontool: Run, tmp_path: Path) -> None:
    """An optimizer can be looked at alone, by its path."""
    good, bad = (torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict() for _ in "ab")
    bad["param_groups"][0]["weight_decay"] = -1.0
    path = str(torch_file(tmp_path / "two.pt", {"good": good, "bad": bad}))
    assert [liontool("verify", path, "--optimizer", name)[0] for name in ("good", "bad")] == [0, 1]
    assert "--optimizer x leads nowhere" in "".join(
        liontool("verify", path, "--optimizer", "x")[1:]
    )

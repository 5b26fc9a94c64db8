"""`liontool inspect` beyond the first screen: tensors, statistics, fields, statements."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from support.memory import peak

Run = Callable[..., Any]

HUGE = 500 << 30
LAYERS = 50


@pytest.fixture
def checkpoint(tmp_path: Path, evil: tuple[str, str]) -> Path:
    """Two blocks, an AdamW with names, and a tensor whose name plays tricks."""
    torch.manual_seed(0)
    model = torch.nn.ModuleDict({"h": torch.nn.ModuleList(torch.nn.Linear(4, 4) for _ in "ab")})
    optimizer = torch.optim.AdamW(list(model.named_parameters()), lr=3e-4)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state[evil[0]] = torch.tensor([1.0, float("nan")])
    torch.save(state, tmp_path / "run.pt")
    return tmp_path / "run.pt"


@pytest.fixture(scope="module")
def huge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A safetensors file of 500 GB, all of it one hole but for its header and a few numbers."""
    path = tmp_path_factory.mktemp("huge") / "model.safetensors"
    rows, size = HUGE // LAYERS // 4096 // 4, HUGE // LAYERS // 4096 // 4 * 4096 * 4
    header = {
        f"layers.{n}.weight": {
            "dtype": "F32", "shape": [rows, 4096], "data_offsets": [n * size, (n + 1) * size],
        }
        for n in range(LAYERS)
    }  # fmt: skip
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        os.truncate(path, file.tell() + LAYERS * size)
        file.seek(3 * size + 40, os.SEEK_CUR)
        file.write(struct.pack("<4f", 1.0, -2.0, 3.0, 4.0))
    return path


def test_list(liontool: Run, checkpoint: Path, evil: tuple[str, str]) -> None:
    """--tensors prints a line for each, the name last and safe; a filter says how many it took."""
    code, out, err = liontool("inspect", str(checkpoint), "--tensors")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["role", "dtype", "shape", "size", "name"]
    assert "  weight  float32  [4, 4]  64 B  h.0.weight" in lines
    assert any(line.endswith(f"  {evil[1]}") for line in lines)
    assert lines[-1] == "17 tensors, 126 elements, 504 B"


def test_filter(liontool: Run, checkpoint: Path) -> None:
    """What a filter took is said on stderr, so that lines on stdout are tensors."""
    code, out, err = liontool("inspect", str(checkpoint), "--filter", "*.bias", "--sort", "name")
    assert (code, err) == (0, "matched 2 of 17 tensors\n")
    assert [line.split()[-1] for line in out.splitlines()[1:3]] == ["h.0.bias", "h.1.bias"]


def test_tree(liontool: Run, checkpoint: Path) -> None:
    """--tree folds what differs in numbers alone."""
    code, out, _ = liontool("inspect", str(checkpoint), "--tree", "--filter", "h.*")
    assert code == 0
    assert out.splitlines() == [
        "  tensors  elements   size  name",
        "        4        40  160 B  h.{0-1}",
        "        2        32  128 B    weight  float32 [4, 4]",
        "        2         8   32 B    bias  float32 [4]",
        "",
        "4 tensors, 40 elements, 160 B",
    ]


def test_sort_is_checked(liontool: Run, checkpoint: Path) -> None:
    """An order that there is not is an error."""
    code, _, err = liontool("inspect", str(checkpoint), "--tensors", "--sort", "age")
    assert (code, err) == (
        2, "liontool: error: unknown order 'age', choose from: file, name, size\n",
    )  # fmt: skip


def test_statistics(liontool: Run, checkpoint: Path, evil: tuple[str, str]) -> None:
    """--stats shows what is not finite, updates by group, and values by template."""
    code, out, err = liontool("inspect", str(checkpoint), "--stats")
    assert (code, err) == (0, "")
    assert f"{evil[1]}: 1 NaN and 0 infinite among 2" in out.replace("\n    ", " ")
    assert "Updates by group" in out
    assert "  h.{0-1}.weight" in out
    assert any(line.startswith("    exp_avg_sq ") for line in out.splitlines())
    assert "norm" not in out
    assert max(map(len, out.splitlines())) <= 80


def test_statistics_of_each(
    liontool: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """--stats --tensors shows every parameter; a wide terminal has room for norm and mean."""
    monkeypatch.setenv("COLUMNS", "120")
    code, out, err = liontool("inspect", str(checkpoint), "--stats", "--tensors", "--filter", "h.*")
    assert (code, err) == (0, "matched 4 of 17 tensors\n")
    titles = [line for line in out.splitlines() if line.startswith("  h.")]
    assert titles == ["  h.0.weight", "  h.0.bias", "  h.1.weight", "  h.1.bias"]
    assert "norm" in out
    assert max(map(len, out.splitlines())) <= 120


def test_statistics_in_a_narrow_window(
    liontool: Run, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exponents have a line of their own where they would stick out."""
    monkeypatch.setenv("COLUMNS", "60")
    code, out, _ = liontool("inspect", str(checkpoint), "--stats", "--filter", "h.*")
    assert code == 0
    assert max(map(len, out.splitlines()[1:])) <= 60
    after = [b for a, b in pairwise(out.splitlines()) if a.startswith("    weight ")]
    assert after
    assert all(line.startswith("      exponents ") for line in after)


@pytest.mark.parametrize("each", [(), ("--tensors",)], ids=["templates", "each"])
def test_statistics_of_two_models(liontool: Run, tmp_path: Path, each: tuple[str, ...]) -> None:
    """Parameters of the same name in two models have rows of their own."""
    weights = {"h.0.w": torch.ones(2), "h.1.w": torch.ones(2)}
    models = {"G": weights, "D": {name: 9 * w for name, w in weights.items()}}
    models["D"]["h.1.w"][1] = float("nan")
    torch.save(models, tmp_path / "gan.pt")
    code, out, _ = liontool("inspect", str(tmp_path / "gan.pt"), "--stats", *each)
    assert code == 0
    lines = out.splitlines()
    assert "  ! D: h.1.w: 1 NaN and 0 infinite among 2" in lines
    for title, size in ((f"G: h.{0 if each else '{0-1}'}.w", "1"), ("D: h.", "9")):
        at = next(i for i, line in enumerate(lines) if line.startswith(f"  {title}"))
        assert lines[at + 1].split()[:2] == ["weight", size]


@pytest.mark.parametrize("option", ["--tensors", "--stats"])
def test_json(liontool: Run, checkpoint: Path, option: str) -> None:
    """--json prints the same as one document."""
    code, out, _ = liontool("inspect", str(checkpoint), option, "--json")
    assert code == 0
    assert len(json.loads(out)["tensors"]) == 17


def test_fields(liontool: Run, checkpoint: Path) -> None:
    """--field prints bare values, one a line, for scripts."""
    code, out, err = liontool(
        "inspect", str(checkpoint), "--field", "groups.0.lr", "--field", "framework",
        "--field", "groups.0.betas",
    )  # fmt: skip
    assert (code, out, err) == (0, "0.0003\nplain\n[0.9, 0.999]\n", "")


def test_unknown_field(liontool: Run, checkpoint: Path) -> None:
    """A field that is not there is an error in one line."""
    code, out, err = liontool("inspect", str(checkpoint), "--field", "groups.0.rate")
    assert (code, out) == (2, "")
    assert err.startswith("liontool: error: no field 'groups.0.rate'; groups.0 has: parameters, ")
    assert err.count("\n") == 1


def test_assert(liontool: Run, checkpoint: Path) -> None:
    """--assert is silent where all holds, else it exits with 1 and says what does not."""
    good, bad = "groups.0.lr < 1e-3", "groups.0.lr < 1e-6"
    assert liontool("inspect", str(checkpoint), "--assert", good) == (0, "", "")
    code, out, err = liontool("inspect", str(checkpoint), "--assert", good, "--assert", bad)
    assert (code, out) == (1, "")
    assert err == "liontool: groups.0.lr is 0.0003, which is not < 1e-06\n"


def test_assert_of_an_absent_field(liontool: Run, checkpoint: Path) -> None:
    """What is not there is neither true nor false: 2, not 1."""
    assert liontool("inspect", str(checkpoint), "--assert", "groups.5.lr < 1").code == 2


def test_fields_as_json(liontool: Run, checkpoint: Path) -> None:
    """Values and statements are one document too."""
    _, out, _ = liontool(
        "inspect", str(checkpoint), "--field", "groups.0.lr", "--assert", "groups.0.lr > 1",
        "--json",
    )  # fmt: skip
    document = json.loads(out)
    assert document["schema"] == 1
    assert document["fields"] == {"groups.0.lr": 3e-4}
    assert document["assertions"][0]["holds"] is False


@pytest.mark.parametrize(
    "options",
    [(), ("--tensors",), ("--tree",), ("--stats",), ("--stats", "--filter", "layers.{0-4}.*")],
    ids=" ".join,
)
def test_500_gb(huge: Path, options: tuple[str, ...]) -> None:
    """Half a terabyte takes the memory and the time of nothing; holes are not read."""
    assert huge.stat().st_size > HUGE * 0.99
    start = time.monotonic()
    assert 0 < peak("inspect", huge, *options) < 64_000_000
    assert time.monotonic() - start < 60


def test_values_in_holes(huge: Path) -> None:
    """What stands between holes is found, and holes are zeros."""
    command = [sys.executable, "-m", "liontool", "inspect", str(huge), "--stats", "--json"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    values = json.loads(printed)["kinds"]["weight"]
    assert values["count"] == values["zeros"] + 4
    assert (values["min"], values["max"]) == (-2.0, 4.0)
    assert values["norm"] == pytest.approx(30**0.5)

"""Memory of the commands: a multiple of the headers, whatever the size of the file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

from liontool.checkpoint.formats.zip_records import CENTRAL
from liontool.checkpoint.source import open_source
from support.memory import peak

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="RssAnon is Linux's own figure")

PARAMETERS = 3000
HUGE = 20 << 30


def optimizer_state(tensors: list[torch.Tensor]) -> dict[str, object]:
    """AdamW's state of parameters that look like `tensors`."""
    step = torch.tensor(500.0)
    state = {
        i: {"step": step.clone(), "exp_avg": tensor, "exp_avg_sq": tensor.clone()}
        for i, tensor in enumerate(tensors)
    }
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1,
             "amsgrad": False, "params": list(range(len(tensors)))}  # fmt: skip
    return {"state": state, "param_groups": [group]}


@pytest.fixture(params=[True, False], ids=["zip", "legacy"])
def many(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A checkpoint with thousands of small tensors, in both kinds of torch file."""
    path = tmp_path / "many.ckpt"
    tensors = [torch.ones(4) for _ in range(PARAMETERS)]
    torch.save(
        {"model": {f"layers.{i}.weight": tensor for i, tensor in enumerate(tensors)},
         "optimizer": optimizer_state([tensor.clone() for tensor in tensors])},
        path, _use_new_zipfile_serialization=request.param,
    )  # fmt: skip
    return path


@pytest.fixture
def huge(tmp_path: Path) -> Path:
    """A checkpoint of 20 GB, all of it a hole but the headers: data that were never written."""
    from torch.serialization import skip_data

    hole, path = tmp_path / "hole", tmp_path / "huge.ckpt"
    hole.touch()
    os.truncate(hole, HUGE)
    weight = torch.from_file(str(hole), shared=True, size=HUGE // 4)
    with skip_data():
        torch.save({"optimizer": optimizer_state([torch.ones(4)]), "weight": weight}, path)
    pretend_checksum(path, b"huge/data/3")
    return path


def pretend_checksum(path: Path, name: bytes) -> None:
    """Put a CRC-32 where `skip_data` writes none: to work it out would take a while."""
    with path.open("r+b") as file:
        start = file.seek(-4096, os.SEEK_END)
        line = start + file.read().index(name) - CENTRAL.size
        file.seek(line + 16)
        file.write(b"\1\2\3\4")


def allowed(path: Path) -> int:
    """64 MB and 16 times the headers and pickles."""
    return 64_000_000 + 16 * open_source(path).document().overhead


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_convert_many_tensors(many: Path, tmp_path: Path, suffix: str) -> None:
    """Thousands of tensors take memory in proportion to what the file says of them."""
    output = tmp_path / f"out.{suffix}"
    assert 0 < peak("convert", many, "-o", output, "--lr-ratio", "3") < allowed(many)


def test_inspect_many_tensors(many: Path) -> None:
    """`inspect` keeps to the same bounds."""
    assert 0 < peak("inspect", many) < allowed(many)


def test_verify_many_tensors(many: Path) -> None:
    """`verify` too, with all that it reads."""
    assert 0 < peak("verify", many, "--code") < allowed(many)


def test_diff_many_tensors(many: Path, tmp_path: Path) -> None:
    """`diff` looks at two files, which may take twice the headers."""
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(many.read_bytes())
    assert 0 < peak("diff", many, copy) < 2 * allowed(many) - 64_000_000


def test_edit_many_tensors(many: Path, tmp_path: Path) -> None:
    """`edit` too, where it changes a value and takes thousands of tensors out."""
    words = ("lr=x0.5", "drop:*exp_avg_sq")
    assert 0 < peak("edit", many, *words, "-o", tmp_path / "out.ckpt") < allowed(many)


def test_convert_huge_file(huge: Path, tmp_path: Path) -> None:
    """The size of the tensors does not matter; holes stay holes."""
    assert huge.stat().st_size > HUGE
    output = tmp_path / "out.ckpt"
    assert 0 < peak("convert", huge, "-o", output, "--lr-ratio", "3") < allowed(huge)
    assert output.stat().st_size > HUGE
    assert output.stat().st_blocks * 512 < 1 << 26

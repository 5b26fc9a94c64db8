"""The benchmark of the GPU step runs where there is no GPU, and claims nothing there."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from liontool.optim import Lion

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_step.py"


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is something to measure")
def test_without_a_gpu_nothing_is_measured():
    """The script ends well, without a figure."""
    assert run().startswith("no CUDA device, so there is nothing to measure")


def test_selftest(tmp_path):
    """Peers are checked and measured on tiny tensors in one table, missing ones named."""
    figures = tmp_path / "figures.json"
    peers = "liontool Lion,CUDA graph,AdamW fused,FlashLion"
    shown = run("--selftest", "--peers", peers, "--json", figures)
    assert "torch " + torch.__version__ in shown.splitlines()[0]
    for dtype in ("fp32", "bf16"):
        assert f"- {dtype} liontool Lion: Lion" in shown
        assert f"- {dtype} liontool LionSF: moves" in shown
        assert f"- {dtype} FlashLion: left out: " in shown
        assert f"| tiny | {dtype} | torch AdamW fused | " in shown
    assert "WRONG" not in shown
    lengths = {line.count("|") for line in shown.splitlines() if line.startswith("|")}
    assert lengths == {10}
    rows = json.loads(figures.read_text())["rows"]
    assert [row["optimizer"] for row in rows if "failed" in row] == []


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_check_tells_lion_from_what_is_nearly_lion(dtype):
    """Roundings on the way are allowed, another lr or no weight decay in float32 is not."""
    script = runpy.run_path(str(SCRIPT))
    wrong = [{"lr": 1.5e-4}, *([{"weight_decay": 0.0}] if dtype == torch.float32 else [])]
    for changed in ({}, *wrong):

        def make(params, changed=changed, **hypers):
            return Lion(params, foreach=False, **{**hypers, **changed})

        verdict = script["check"](script["Peer"](make, float), dtype, torch.device("cpu"))
        assert verdict.startswith("WRONG" if changed else "Lion")


def test_a_row_that_fails_says_so(capsys):
    """It takes too long or too much memory, and the rows after it are there."""
    script = runpy.run_path(str(SCRIPT))

    def sleeps(params, **hypers):
        time.sleep(10)

    def fills(params, **hypers):
        raise torch.OutOfMemoryError("CUDA out of memory. | of | all")

    made = {"slow": sleeps, "large": fills, "fine": lambda params, **hypers: Lion(params, **hypers)}
    script["PEERS"].update({name: script["Peer"](make, float) for name, make in made.items()})
    device = torch.device("cpu")
    rows = []
    for name, limit in (("slow", 1), ("large", 100), ("fine", 100)):
        clock = script["Clock"](device)
        rows += script["rows_of"]("tiny", "fp32", [name], device, clock, 1.0, 1.0, limit)
    shown = capsys.readouterr().out.splitlines()
    assert "TimeoutError: took longer than 1 s" in shown[0]
    assert "OutOfMemoryError: CUDA out of memory. / of / all" in shown[1]
    assert ["failed" in row for row in rows] == [True, True, False]
    assert {line.count("|") for line in shown} == {10}

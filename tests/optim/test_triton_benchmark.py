"""The benchmark of the GPU step runs where there is no GPU, and claims nothing there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_step.py"


def run(*arguments):
    command = [sys.executable, SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is something to measure")
def test_without_a_gpu_nothing_is_measured():
    """The script ends well, without a figure."""
    assert run().startswith("no CUDA device, so there is nothing to measure")


def test_selftest():
    """Peers are checked and measured on tiny tensors, missing ones named."""
    shown = run("--selftest", "--peers", "liontool,AdamW fused,FlashLion", "--dtypes", "fp32")
    assert "fp32 liontool Lion: Lion" in shown
    assert "fp32 liontool LionSF: moves" in shown
    assert "| torch AdamW fused | " in shown
    assert "WRONG" not in shown

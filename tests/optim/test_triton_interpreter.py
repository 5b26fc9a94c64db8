"""Without a GPU the kernels run in Triton's interpreter, which must be chosen before any import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from liontool.optim.kernels import triton_layout

HERE = Path(__file__).parent
FILES = sorted(HERE.glob("test_triton_*.py"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="`pytest -m gpu` runs them on the GPU")
def test_kernels_under_the_interpreter():
    """Every test of the kernels that needs no GPU of its own passes."""
    pytest.importorskip("triton")
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [*command, *map(str, FILES)],
        cwd=HERE.parents[1],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert " passed" in ran.stdout


def test_nothing_but_a_plan_imports_triton():
    """Where Triton is not installed, all else can be imported, and says so."""
    script = """
import sys
sys.modules["triton"] = None
import liontool.optim
from liontool.optim.kernels import triton_layout, triton_op
"""
    subprocess.run([sys.executable, "-c", script], check=True, cwd=HERE.parents[1])


@pytest.mark.parametrize(
    ("found", "cuda", "hip", "reason"),
    [
        (None, True, None, "triton is not installed"),
        ("a spec", False, None, "no CUDA device"),
        ("a spec", True, "6.0", "no CUDA device"),
        ("a spec", True, None, None),
    ],
)
def test_why_there_are_no_kernels(monkeypatch, found, cuda, hip, reason):
    """The first thing that is missing is named."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(triton_layout.importlib.util, "find_spec", lambda name: found)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.version, "hip", hip)
    assert triton_layout.missing() == reason

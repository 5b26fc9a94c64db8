"""Without a GPU the kernels run in Triton's interpreter, which must be chosen before any import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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

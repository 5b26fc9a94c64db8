"""Lion and LionSF on the Triton kernels, from the constructor to the bits, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import triton_runs

NAMES = [f"{kind}, {case}" for kind in triton_runs.KINDS for case in triton_runs.CASES]
NAMES += [f"{kind}, many steps" for kind in triton_runs.LONG]


@pytest.fixture(scope="module")
def results() -> dict[str, list[object]]:
    """What the runs print, of a process in which Triton interprets and C is not compiled."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-m", "support.triton_runs"],
        env={**os.environ, "TRITON_INTERPRET": "1", "LIONTOOL_NO_COMPILE": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


@pytest.mark.parametrize("name", NAMES)
def test_the_triton_path_gives_the_bits_of_the_loop(
    results: dict[str, list[object]], name: str
) -> None:
    """The kernels are chosen by themselves, and weights and state equal the loop's."""
    assert results[name] == ["triton", True]

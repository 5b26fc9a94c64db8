"""`torch.compile` of a step on the Triton kernels: one operator in one graph, without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from support import traced_runs

NAMES = [f"{kind}, {name}" for kind, names in traced_runs.NAMES.items() for name in names]
OPERATOR = "liontool.triton_step.default"


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    """What the runs print, of a process in which Triton interprets."""
    tests = Path(__file__).parents[1]
    path = os.pathsep.join([str(tests), *filter(None, [os.environ.get("PYTHONPATH")])])
    ran = subprocess.run(
        [sys.executable, "-m", "support.traced_runs"],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_with_one_operator_and_the_bits_of_the_loop(
    results: dict[str, Any], name: str
) -> None:
    """Steps are compiled once, nothing else touches a tensor, and skipped steps do not count."""
    graphs, operations, equal = results[name]
    assert (graphs, equal) == (1, True)
    assert operations.count(OPERATOR) == 1
    assert len(operations) == 1 or name == "lion, average"  # which follows the step


def test_inductor_gives_the_bits_of_the_loop(results: dict[str, Any]) -> None:
    """It passes weights, momenta and residuals on, as they are."""
    assert results["inductor"]


def test_what_is_recorded_is_in_the_graph(results: dict[str, Any]) -> None:
    """While metrics are wanted a compiled step takes torch's operations."""
    assert results["recorded"]
    assert OPERATOR not in results["recorded"]

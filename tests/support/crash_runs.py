"""The crash tests in their short form, from a process that forks and so is none of pytest's."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "crash" / "run.py"


def short(part: str) -> dict[str, int]:
    """Run a part in its short form; what it counted, if there was no problem.

    Args:
        part: As `run.py` calls it.
    """
    command = [sys.executable, str(SCRIPT), "--part", part, "--short"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["problems"] == []
    counts: dict[str, int] = found["counts"]
    return counts

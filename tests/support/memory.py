"""How much memory a run of the command takes."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path


def peak(*arguments: str | Path) -> int:
    """The highest RssAnon, in bytes, of a run of the command."""
    with subprocess.Popen(
        [sys.executable, "-m", "liontool", *arguments], stdout=subprocess.DEVNULL
    ) as process:
        highest = 0
        while process.poll() is None:
            highest = max(highest, anonymous(process.pid))
            time.sleep(0.002)
    assert process.returncode == 0
    return highest


def anonymous(pid: int) -> int:
    """RssAnon of a process, in bytes; 0 once it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    lines = (line.split() for line in status.splitlines() if line.startswith("RssAnon:"))
    return next((int(words[1]) * 1024 for words in lines), 0)

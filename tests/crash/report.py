"""What the crash tests did, as a page of the documentation."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import version

from liontool.version import __version__
from support.crash_part import Part

HEAD = """---
orphan: true
---
<!-- written by `make crash-test` -->
# Crash report

Runs of one process are killed, cut off from power and disk, and damaged, on purpose. Every number
is a count of this one call of `make crash-test`; a problem is anything that differs from the
promise: a lost step, a wrong bit, a damaged checkpoint that was used.
"""


def written(parts: Sequence[Part], seconds: float) -> str:
    """The page.

    Args:
        parts: What was found.
        seconds: How long all of it took, two parts at a time.
    """
    problems = sum(len(part.problems) for part in parts)
    blocks = [HEAD, _summary(parts, seconds, problems), *map(_section, parts), _machine()]
    return "\n".join(blocks)


def _summary(parts: Sequence[Part], seconds: float, problems: int) -> str:
    killed = sum(part.counts["kills"] for part in parts)
    differences = sum(part.counts["differences"] for part in parts)
    return (
        f"**{killed:,} kills, {differences:,} differing states, {problems:,} problems**, "
        f"in {seconds / 60:.1f} minutes on {time.strftime('%Y-%m-%d')}.\n"
    )


def _section(part: Part) -> str:
    verdict = "no problem" if not part.problems else f"**{len(part.problems)} problems**"
    lines = [
        f"## {part.name[0].upper()}{part.name[1:]}",
        "",
        f"{part.seconds:,.0f} seconds, seed {part.seed}: {verdict}.",
        "",
        "| What | How often |",
        "|---|--:|",
        *(f"| {what} | {count:,} |" for what, count in sorted(part.counts.items())),
        "",
        *(f"- {problem}" for problem in part.problems),
    ]
    return "\n".join(lines)


def _machine() -> str:
    names = ("torch", "torchdata", "numpy", "safetensors", "xxhash")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    done = subprocess.run(["strace", "--version"], capture_output=True, text=True, check=True)
    strace = done.stdout.splitlines()[0].split()[-1]
    kernel = f"{platform.system()} {platform.release().split('-')[0]}"
    return (
        "## With\n\n"
        f"liontool {__version__}, {versions}; Python {platform.python_version()}; "
        f"{kernel}; strace {strace}; {os.cpu_count()} cores.\n"
    )

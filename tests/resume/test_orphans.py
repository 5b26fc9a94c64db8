"""Loader workers whose run is killed, before they began or afterwards."""

from __future__ import annotations

import subprocess
import sys
import time

SCRIPT = """
import os, time
from liontool.resume.signals import IgnoreSignals

ignore = IgnoreSignals(lambda worker: print(f"worker {worker}", flush=True))
run = os.getpid()
if os.fork():
    if DIES:
        os._exit(0)
    os.wait()
else:
    while DIES and os.getppid() == run:
        time.sleep(0.001)
    ignore(3)
"""


LATER = """
import os, signal, time
from liontool.resume.signals import IgnoreSignals

ignore = IgnoreSignals(None)
read, write = os.pipe()
if os.fork():
    os.read(read, 1)
    os.kill(os.getpid(), signal.SIGKILL)
ignore(0)
os.write(write, b".")
time.sleep(60)
"""


def said_by_a_worker(*, dies: bool) -> str:
    """What a worker says whose run dies before it begins, or does not.

    Args:
        dies: Whether the run does.
    """
    code = SCRIPT.replace("DIES", str(dies))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stderr == ""
    return done.stdout


def test_a_worker_of_a_dead_run_ends_at_once() -> None:
    """It does not wait for ever for work that nobody gives it."""
    assert said_by_a_worker(dies=True) == ""


def test_a_worker_of_a_living_run_begins() -> None:
    """It does what the loader was told."""
    assert said_by_a_worker(dies=False) == "worker 3\n"


def test_a_worker_ends_when_its_run_is_killed() -> None:
    """At once: torch looks only every five seconds."""
    began = time.monotonic()
    run = subprocess.run([sys.executable, "-c", LATER], capture_output=True, timeout=60)
    assert run.returncode == -9  # and its output has ended, which the worker had open too
    assert time.monotonic() - began < 30

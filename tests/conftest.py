"""What holds for every test: one thread, no network, the same random examples in every run.

A test that leaves a `Run` open, as a killed program does, leaves no handlers to the next one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

# Read by torch and by the hub client when they are imported, so they are set before any test is.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from hypothesis import HealthCheck, settings

settings.register_profile(
    "liontool",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("liontool")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    earlier = {number: signal.getsignal(number) for number in numbers}
    yield
    for number, handler in earlier.items():
        if signal.getsignal(number) is not handler:
            signal.signal(number, handler)

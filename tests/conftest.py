"""What holds for every test: one thread, no network, the same random examples in every run."""

from __future__ import annotations

import os

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

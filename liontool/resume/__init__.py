"""Runs that cannot be lost: saved while they train, verified before they are loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from liontool.resume.run import Run
    from liontool.resume.sample_seeded import SampleSeeded

__all__ = ["Run", "SampleSeeded"]


def __getattr__(name: str) -> Any:
    """Import torch only for what trains: the command line looks at run folders without it."""
    if name == "Run":
        from liontool.resume.run import Run

        return Run
    if name == "SampleSeeded":
        from liontool.resume.sample_seeded import SampleSeeded

        return SampleSeeded
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

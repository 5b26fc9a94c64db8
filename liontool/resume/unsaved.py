"""Which steps are lost when a run ends without a save, in words."""

from __future__ import annotations


def unsaved(saved: int | None, step: int, why: str) -> str | None:
    """A line that names them; None where all are saved.

    Args:
        saved: The newest durable step; None where there is none.
        step: Where the run stands.
        why: Why they are not saved.
    """
    first = (saved or 0) + 1
    if step < first:
        return None
    steps = f"step {step:,} is" if step == first else f"steps {first:,} to {step:,} are"
    then = "begins afresh" if saved is None else f"goes on at step {saved:,}"
    return f"{steps} not saved: {why}; a start {then}"

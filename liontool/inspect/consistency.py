"""Whether state, groups and schedulers of a checkpoint fit each other, from headers alone."""

from __future__ import annotations

from liontool.inspect.findings import Finding
from liontool.inspect.opening import Opened


def consistency(opened: Opened) -> list[Finding]:
    """What does not fit, in the order of the file; nothing where there is no optimizer.

    Args:
        opened: The checkpoint.
    """
    return []

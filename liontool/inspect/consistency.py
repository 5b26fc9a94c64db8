"""Whether state, groups and schedulers of a checkpoint fit each other, from headers alone."""

from __future__ import annotations

from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import group_findings
from liontool.inspect.opening import Opened
from liontool.inspect.scheduler_checks import loose_findings, scheduler_findings
from liontool.inspect.state_checks import state_findings, weight_dtypes


def consistency(opened: Opened) -> list[Finding]:
    """What does not fit, optimizer by optimizer; nothing where there is none.

    Args:
        opened: The checkpoint.
    """
    checkpoint = opened.checkpoint
    if checkpoint is None:
        return []
    weights = weight_dtypes(opened)
    found: list[Finding] = []
    for optimizer in checkpoint.optimizers:
        found += state_findings(optimizer, weights)
        found += group_findings(optimizer)
        found += scheduler_findings(optimizer, bool(checkpoint.loose_schedulers))
    return found + list(loose_findings(checkpoint))

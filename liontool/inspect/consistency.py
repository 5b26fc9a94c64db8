"""Whether state, groups and schedulers of a checkpoint fit each other, from headers alone."""

from __future__ import annotations

from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import group_findings
from liontool.inspect.opening import Opened
from liontool.inspect.scheduler_checks import loose_findings, scheduler_findings
from liontool.inspect.state_checks import state_findings, weight_dtypes


def consistency(opened: Opened) -> list[Finding]:
    """What does not fit, optimizer by optimizer, and what was said while the files were read.

    Args:
        opened: The checkpoint.
    """
    checkpoint = opened.checkpoint
    found = [Finding("torn-header", "", text) for text in opened.source.notices()]
    if checkpoint is None:
        return found
    weights = weight_dtypes(opened)
    for optimizer in checkpoint.optimizers:
        found += state_findings(optimizer, weights)
        found += group_findings(optimizer)
        found += scheduler_findings(optimizer, bool(checkpoint.loose_schedulers))
    return found + list(loose_findings(checkpoint))

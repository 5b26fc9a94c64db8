"""Whether state, groups and schedulers of a checkpoint fit each other, from headers alone."""

from __future__ import annotations

from liontool.inspect.family_checks import family_findings
from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import group_findings
from liontool.inspect.opening import Opened
from liontool.inspect.run_checks import run_findings
from liontool.inspect.scheduler_checks import loose_findings, scheduler_findings
from liontool.inspect.schedules.trainer import factor_of
from liontool.inspect.state_checks import state_findings, weight_dtypes
from liontool.measure.weights import weights_by_slot


def consistency(opened: Opened) -> list[Finding]:
    """What does not fit, optimizer by optimizer, and what was said while the files were read.

    Args:
        opened: The checkpoint.
    """
    checkpoint = opened.checkpoint
    found = [Finding("torn-header", "", text) for text in opened.source.notices()]
    found += run_findings(opened.source)
    if checkpoint is None:
        return found
    for optimizer in checkpoint.optimizers:
        own = weights_by_slot(opened.source, checkpoint, optimizer).values()
        dtypes = {tensor.dtype for tensor in own} or weight_dtypes(opened)
        found += state_findings(optimizer, dtypes)
        found += family_findings(optimizer)
        found += group_findings(optimizer)
        others = bool(checkpoint.loose_schedulers)
        found += scheduler_findings(optimizer, others, factor_of(checkpoint))
    return found + list(loose_findings(checkpoint))

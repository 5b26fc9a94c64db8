"""Optimizers and schedulers as plain mappings, for the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import describe
from liontool.checkpoint.model import Optimizer, ParamGroup
from liontool.checkpoint.plain_values import plain
from liontool.convert.change import Change
from liontool.convert.ratio import RatioEstimate
from liontool.convert.report import OptimizerReport
from liontool.states import MOMENT


def optimizer_report(
    before: Optimizer, change: Change, ratio: float, estimate: RatioEstimate | None
) -> OptimizerReport:
    """One optimizer before and after its conversion."""
    after = change.optimizer
    return OptimizerReport(
        label=before.label,
        kind=change.recognition.kind,
        ratio=ratio,
        estimate=asdict(estimate) if estimate else None,
        groups_before=_groups(before),
        groups_after=_groups(after),
        schedulers_before=_schedulers(before),
        schedulers_after=_schedulers(after),
        dropped=change.dropped,
    )


def _groups(optimizer: Optimizer) -> tuple[Mapping[str, Any], ...]:
    return tuple(_group(group, optimizer) for group in optimizer.groups)


def _group(group: ParamGroup, optimizer: Optimizer) -> Mapping[str, Any]:
    moments = (
        optimizer.slots[key].state.get(MOMENT) for key in group.params if key in optimizer.slots
    )
    elements = sum(moment.numel for moment in moments if isinstance(moment, TensorRef))
    return {**plain(group.fields), "parameters": len(group.params), "elements": elements}


def _schedulers(optimizer: Optimizer) -> tuple[Mapping[str, Any], ...]:
    return tuple(asdict(describe(scheduler)) for scheduler in optimizer.schedulers)

"""What can be wrong with a checkpoint: findings with ids that stay, each in the table below."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"
SEVERITIES = (ERROR, WARNING, NOTE)


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        severity: "error": a resume fails or goes wrong; "warning": it may; "note": good to know.
        meaning: One sentence for the documentation.
    """

    severity: str
    meaning: str


KINDS: Mapping[str, Kind] = {
    # The optimizer: parameters and their state.
    "state-without-parameter": Kind(ERROR, "State belongs to no group's parameter, and is lost."),
    "parameter-twice": Kind(ERROR, "A parameter stands in two groups, or twice in one."),
    "state-field-missing": Kind(ERROR, "A parameter's state lacks a field that others' have."),
    "moment-shape": Kind(ERROR, "A moment has another shape than its parameter."),
    "moment-dtype": Kind(WARNING, "A moment has another element type than its parameter."),
    "moment-dtypes-differ": Kind(NOTE, "The moments are of several element types."),
    "parameter-without-state": Kind(NOTE, "Parameters have no state: frozen, or never used."),
    "no-state": Kind(NOTE, "No parameter has state: the optimizer has not made a step."),
    "steps-differ": Kind(NOTE, "Parameters have made different numbers of steps."),
    # Groups: hyperparameters.
    "no-lr": Kind(ERROR, "A group has no learning rate."),
    "hyperparameter-range": Kind(ERROR, "A hyperparameter is nothing that an optimizer takes."),
    "group-fields-differ": Kind(WARNING, "A group lacks a field that other groups have."),
    "lion-betas": Kind(WARNING, "A Lion has the betas of an AdamW."),
    # Schedulers against groups.
    "rate-count": Kind(ERROR, "A scheduler has not one learning rate for each group."),
    "scheduler-field": Kind(ERROR, "A scheduler, or a group it drives, lacks what it needs."),
    "missing-initial-lr": Kind(WARNING, "A scheduler drives a group that has no initial_lr."),
    "base-lr-differs": Kind(WARNING, "A scheduler's base_lrs are not the groups' initial_lr."),
    "last-lr-differs": Kind(WARNING, "A scheduler's _last_lr is not the groups' lr."),
    "schedule-over": Kind(WARNING, "A scheduler is at the end of what it can do."),
    "beta1-cycled": Kind(WARNING, "A scheduler goes on setting beta1, of a Lion too."),
    "scheduler-unpaired": Kind(WARNING, "Which optimizer a scheduler drives cannot be told."),
    "lr-outside": Kind(NOTE, "The learning rate is set by code or settings outside the file."),
}
"""Every kind by its id, in the order of the documentation."""


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, or good to know.

    Attributes:
        id: A key of `KINDS`; never changes its meaning.
        where: File, tensor, group or scheduler; "" for the whole checkpoint.
        text: What it is and what to do, one sentence.
    """

    id: str
    where: str
    text: str

    @property
    def severity(self) -> str:
        """That of its kind."""
        return KINDS[self.id].severity

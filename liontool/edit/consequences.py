"""What the words of an edit, all together, would do to the next step of the run."""

from __future__ import annotations

from collections.abc import Iterator

from liontool.edit.draft import Draft
from liontool.errors import EditError
from liontool.inspect.family_checks import family_findings
from liontool.inspect.findings import ERROR, Finding
from liontool.inspect.group_checks import group_findings


def check_next_step(before: Draft, after: Draft) -> None:
    """See that nothing new stops the optimizer.

    Raises:
        EditError: It would fail where it did not before.
    """
    known = set(_errors(before))
    new = [f"{error.where}: {error.text}" for error in _errors(after) if error not in known]
    if new:
        raise EditError(f"the edits would break the optimizer: {'; '.join(new)}")


def _errors(draft: Draft) -> Iterator[Finding]:
    for optimizer in draft.checkpoint.optimizers:
        for finding in (*family_findings(optimizer), *group_findings(optimizer)):
            if finding.severity == ERROR:
                yield finding

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


KINDS: Mapping[str, Kind] = {}


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

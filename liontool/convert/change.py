"""What a rule gives back."""

from __future__ import annotations

from dataclasses import dataclass

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.model import Optimizer
from liontool.convert.report import Notice
from liontool.states import Recognition


@dataclass(frozen=True)
class Change:
    """One optimizer after a rule.

    Attributes:
        optimizer: Same groups, slots and schedulers, with other fields.
        recognition: Whose state it was.
        dropped: State and group keys that are gone, each once, state first.
        warnings: What may go wrong, for the user to weigh.
        notes: What else the user should know or must do outside the file.
        moments: The momentum tensors of the result, which must be finite.
    """

    optimizer: Optimizer
    recognition: Recognition
    dropped: tuple[str, ...]
    warnings: tuple[Notice, ...]
    notes: tuple[Notice, ...]
    moments: tuple[TensorRef, ...]

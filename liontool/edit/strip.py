"""`strip`: an optimizer without its state, and everything else that a resume has to know.

Groups, schedulers, steps and epochs stay. Loaders take such an optimizer as one that has not
stepped yet: it starts its moments anew under the hyperparameters of the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from liontool.checkpoint.frameworks import plain
from liontool.checkpoint.model import Optimizer, ParamGroup
from liontool.edit.draft import Draft, Notice
from liontool.edit.noting import noted
from liontool.edit.words import Strip
from liontool.errors import EditError

HORIZON = "horizon"
"""In a group of liontool's Lion: how many gradients the momentum stood for when it was made."""


def strip(draft: Draft, word: Strip) -> Draft:
    """The draft less the state of its optimizers.

    Raises:
        EditError: There is no state.
    """
    optimizers = draft.optimizers()
    if not any(optimizer.slots for optimizer in optimizers):
        raise EditError("the optimizer has no state")
    left = tuple(_stripped(optimizer) for optimizer in optimizers)
    checkpoint = replace(draft.checkpoint, optimizers=left)
    return noted(replace(draft, checkpoint=checkpoint), _notes(draft))


def _stripped(optimizer: Optimizer) -> Optimizer:
    groups = tuple(without_horizon(group) for group in optimizer.groups)
    return replace(optimizer, groups=groups, slots={})


def without_horizon(group: ParamGroup) -> ParamGroup:
    """A group whose momentum starts from zeros, and so averages as if there had been no other."""
    if group.fields.get(HORIZON) is None:
        return group
    return replace(group, fields=group.fields.replaced({HORIZON: None}))


def _notes(draft: Draft) -> Iterator[Notice]:
    yield Notice(
        "starts-anew",
        "the optimizer starts its moments anew from zeros, at the learning rate of the file; a few "
        "steps of warm-up make that gentler",
    )
    step = draft.checkpoint.step
    if step is not None and _is_told_by_state(draft):
        yield Notice(
            "step-in-state",
            f"that {step} steps were made stood in the state alone; the scheduler knows its own, "
            "the script may have to be told",
        )


def _is_told_by_state(draft: Draft) -> bool:
    """Whether the file has no step of its own."""
    is_plain = draft.checkpoint.framework == plain.FRAMEWORK.name
    return is_plain and plain.told_step(draft.source.document().tree) is None

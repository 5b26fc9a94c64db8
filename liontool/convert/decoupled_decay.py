"""Weight decay that does not contain the learning rate: weight_decay * lr / (highest lr).

AdamW takes lr * wd off in every step, and (lr / highest) * decay is the same with decay = highest
* wd. Some Lions read the highest rate from each group; others take the lr that they are constructed
with, one for all groups.
"""

from __future__ import annotations

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import multiplied, number
from liontool.checkpoint.model import Fields, Optimizer
from liontool.convert.settings import Settings
from liontool.errors import RefusedError


def decoupled(fields: Fields, optimizer: Optimizer, settings: Settings) -> dict[str, Value]:
    """The keys of a group that make the decay what it was."""
    lion, highest = settings.lion, highest_lr(optimizer)
    if not lion.constructor:
        highest = _highest_of(fields) or highest
    changes = {
        key: highest / settings.ratio if value is None else value
        for key, value in lion.decoupled.items()
    }
    if "weight_decay" in fields:
        changes["weight_decay"] = multiplied(fields["weight_decay"], highest)
    return changes


def highest_lr(optimizer: Optimizer) -> float:
    """The highest learning rate that any group tells of."""
    return max((_highest_of(group.fields) for group in optimizer.groups), default=0.0)


def _highest_of(fields: Fields) -> float:
    return max(number(fields.get(key)) or 0.0 for key in ("lr", "initial_lr", "max_lr"))


def check_decoupled(optimizer: Optimizer, settings: Settings) -> None:
    """Make sure that there is a learning rate for the decay to be relative to.

    Raises:
        RefusedError: Every learning rate in the groups is 0.
    """
    if settings.decay == "decoupled" and highest_lr(optimizer) <= 0:
        where = f"{optimizer.label}: " if optimizer.label else ""
        raise RefusedError(
            f"{where}the groups tell of no learning rate but 0, and a decoupled decay is relative "
            "to the highest one; convert with --decay scaled, or an earlier checkpoint"
        )

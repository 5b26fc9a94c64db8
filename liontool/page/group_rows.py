"""Parameter groups as a table: many that are alike share a row, and what is set is a column."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from liontool.inspect.summary import GroupSummary

_MOST_SINGLE = 12
_FIRST = ("lr", "initial_lr", "weight_decay", "betas", "eps")
# How torch computes the step, not what the step is.
_UNSHOWN = ("capturable", "differentiable", "foreach", "fused", "decoupled_weight_decay")


@dataclass(frozen=True)
class GroupRow:
    """One group, or several that differ in nothing but their parameters.

    Attributes:
        label: Their indices.
        parameters: Of all of them.
        elements: Of all of them.
        bytes: Of all of them.
        group: The first of them.
    """

    label: str
    parameters: int
    elements: int
    bytes: int
    group: GroupSummary


def group_rows(groups: Sequence[GroupSummary]) -> list[GroupRow]:
    """A row for each group while they are few, else one for all that are alike."""
    if len(groups) <= _MOST_SINGLE:
        return [_row([index], groups) for index in range(len(groups))]
    alike: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        alike.setdefault(repr((sorted(group.fields.items()), group.dtypes)), []).append(index)
    return [_row(same, groups) for same in alike.values()]


def elements_title(groups: Sequence[GroupSummary]) -> str:
    """Above the elements: the sizes of parameters without state may be unknown."""
    return "elements with state" if any(group.unsized for group in groups) else "elements"


def _row(same: Sequence[int], groups: Sequence[GroupSummary]) -> GroupRow:
    own = [groups[index] for index in same]
    return GroupRow(
        _label(same),
        sum(group.parameters for group in own),
        sum(group.elements for group in own),
        sum(group.bytes for group in own),
        own[0],
    )


def _label(indices: Sequence[int]) -> str:
    """ "3", "0-11", "0,2 ... 22"."""
    first, last = indices[0], indices[-1]
    if last - first + 1 == len(indices):
        return str(first) if first == last else f"{first}-{last}"
    return ",".join(map(str, indices)) if len(indices) < 4 else f"{first},{indices[1]} ... {last}"


def columns(groups: Sequence[GroupSummary]) -> list[str]:
    """Hyperparameters to show: those everybody looks for, then those that are set to something."""
    found = dict.fromkeys(name for group in groups for name in group.fields)
    others = (
        name
        for name in found
        if name not in (*_FIRST, *_UNSHOWN)
        and any(group.fields.get(name) not in (None, False) for group in groups)
    )
    return [*(name for name in _FIRST if name in found), *others]

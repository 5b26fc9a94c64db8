"""What the values of a checkpoint say: its weights, its moments, and its updates by group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from liontool.checkpoint.plain_values import json_value
from liontool.measure.summary import ValueSummary

SCHEMA = 1
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor.

    Attributes:
        name: As `--tensors` and `--filter` call it.
        label: Where it lies: the file in a folder, and the path in its tree.
        role: "weight", "state" or "other".
        kind: What it is compared with: "weight", the name of the state ("exp_avg"), or "other".
        parameter: The parameter that it belongs to: its own name, for a weight.
        optimizer: Index of the optimizer that it belongs to, where known.
        group: Index of the parameter group that it belongs to, where known.
        dtype: Element type.
        shape: Sizes of the dimensions.
        shares: Name of the tensor whose values these are too, and that counts for both; else None.
        values: What its values come to.
    """

    name: str
    label: str
    role: str
    kind: str
    parameter: str | None
    optimizer: int | None
    group: int | None
    dtype: str
    shape: tuple[int, ...]
    shares: str | None
    values: ValueSummary


@dataclass(frozen=True)
class UpdateStatistics:
    """What AdamW's moments say of the updates of a group, before the learning rate.

    Means are over the tensors that say something: young and sparse ones are left out.

    Attributes:
        tensors: How many parameters have both moments.
        counting: How many of these say something; without any, what follows but shares is None.
        update_rms: Root mean square of the update.
        persistence: s: which share of the gradient is signal that lasts, not noise.
        stale: Share of elements that move by less than 1e-4 of the learning rate.
        zero: Share of elements that never had a gradient.
    """

    tensors: int
    counting: int
    update_rms: float | None
    persistence: float | None
    stale: float | None
    zero: float | None


@dataclass(frozen=True)
class GroupStatistics:
    """One parameter group.

    Attributes:
        optimizer: Index of its optimizer.
        index: Its position.
        kinds: What its weights (where known) and each of its states come to.
        updates: What the moments say of the updates; None without AdamW's moments.
    """

    optimizer: int
    index: int
    kinds: Mapping[str, ValueSummary]
    updates: UpdateStatistics | None


@dataclass(frozen=True)
class Statistics:
    """The values of a checkpoint, or of a part of it.

    Attributes:
        path: As it was asked for.
        matched: How many tensors were looked at.
        total: How many tensors there are.
        bytes: Their size; values that tensors share count once.
        tensors: Each of them, in the order of the files.
        kinds: All of a kind together: "weight", "exp_avg", ..., "other".
        groups: The parameter groups that any of them belong to.
    """

    path: str
    matched: int
    total: int
    bytes: int
    tensors: tuple[TensorStatistics, ...]
    kinds: Mapping[str, ValueSummary]
    groups: tuple[GroupStatistics, ...]

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        found: dict[str, Any] = json_value({"schema": SCHEMA, **asdict(self)})
        return found

"""What the values of a checkpoint say: its weights, its moments, and its updates by group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from typing import Any

from liontool.checkpoint.collector import paused_collector
from liontool.checkpoint.model import Optimizer
from liontool.checkpoint.plain_values import json_value
from liontool.inspect.globs import matcher
from liontool.inspect.listing import OTHER, STATE, WEIGHT, Item, listed
from liontool.inspect.measuring import Measured, measured
from liontool.inspect.opening import Opened, opened, shown_path
from liontool.inspect.parameter_names import Owner, owners
from liontool.inspect.sharing import shared
from liontool.measure.evidence import TensorEvidence, mean, persistence, update_rms
from liontool.measure.summary import ValueSummary, merged
from liontool.measure.weights import weights_by_slot

SCHEMA = 2
"""Version of the JSON of `to_dict`; grows by one when a field changes its meaning or goes."""


@dataclass(frozen=True)
class TensorStatistics:
    """One tensor.

    Attributes:
        name: As `--tensors` and `--filter` call it.
        label: Where it lies: the file in a folder, and the path in its tree.
        role: "weight", "state" or "other".
        kind: What it is compared with: "weight", the name of the state ("exp_avg"), or "other".
        parameter: The parameter that it belongs to: its own name, for a weight; for state the name
            of its weight as far as it is certain, else its position.
        optimizer: Index of the optimizer that it belongs to, where known.
        group: Index of the parameter group that it belongs to, where known.
        dtype: Element type.
        shape: Sizes of the dimensions.
        shares: Name of the tensor whose values these are too, and that counts for both; else None.
        values: What its values come to.
        model: Which of several models with the same names the parameter belongs to, else "".
        inferred: Whether the file tells only the position of the parameter, whose name is that of
            the weight there in the order of the model.
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
    model: str = ""
    inferred: bool = False

    @property
    def title(self) -> str:
        """Its name, with the model where weights of several have that name."""
        return f"{self.model}: {self.name}" if self.role == WEIGHT and self.model else self.name

    @property
    def is_bad(self) -> bool:
        """Whether it holds what is not finite, other than the infinite best score of a callback."""
        is_score = self.role == OTHER and self.values.count == 1
        return bool(self.values.nan or (self.values.infinite and not is_score))


@dataclass(frozen=True)
class UpdateStatistics:
    """What AdamW's moments say of the updates of a group, before the learning rate.

    RMS and persistence are over the tensors that say something: sparse ones, most of whose rows are
    still, and those that are not finite are left out. In the first 100 steps neither lasts.

    Attributes:
        tensors: How many parameters have both moments.
        telling: How many of these say something; without any, the next two are None.
        update_rms: Root mean square of the update.
        persistence: s: which share of the gradient is signal that lasts, not noise.
        stale: Share of elements that move by less than 1e-4 of the learning rate.
        zero: Share of elements that never had a gradient.
    """

    tensors: int
    telling: int
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
        unread: A sentence for each file of a folder that cannot be read, and is left out.
    """

    path: str
    matched: int
    total: int
    bytes: int
    tensors: tuple[TensorStatistics, ...]
    kinds: Mapping[str, ValueSummary]
    groups: tuple[GroupStatistics, ...]
    unread: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The same in the types of JSON, with the version of the schema first."""
        found: dict[str, Any] = json_value({"schema": SCHEMA, **asdict(self)})
        return found


@paused_collector()
def statistics(
    path: str | PathLike[str],
    framework: str | None = None,
    filters: Sequence[str] = (),
    progress: Callable[[int, int], None] | None = None,
    optimizers: Sequence[str] = (),
) -> Statistics:
    """Read the values of a checkpoint once, in blocks, with all cores. Holes are not read.

    Args:
        path: A file or a folder that a training framework wrote.
        framework: Its name where it should not be found out; then it must fit.
        filters: Globs of the tensors to read, by name or label; `!` before one excludes.
        progress: Called with the bytes read so far and in all.
        optimizers: Take these alone, by their paths in the file, wherever they are.

    Raises:
        ReadError: The files are damaged, unfinished or unsafe, or changed meanwhile.
        AmbiguousError: Several checkpoints fit.
        LayoutError: `framework` was given and does not fit.
        ValueError: A filter is empty.
    """
    look = opened(path, framework, optimizers)
    unread: list[str] = []
    fits, every = matcher(filters), listed(look, unread)
    chosen = [item for item in every if fits(item.name) or fits(item.label)]
    sharing = shared(chosen)
    found = measured(look.checkpoint, chosen, sharing, progress)
    look.source.check_unchanged()
    tensors = tuple(_tensors(look, chosen, owners(look, every), sharing, found))
    counted = [tensor for tensor in tensors if tensor.shares is None]
    return Statistics(
        path=shown_path(path, look.source),
        matched=len(chosen),
        total=len(every),
        bytes=found.bytes,
        tensors=tensors,
        kinds=_by_kind(counted),
        groups=tuple(_groups(look, counted, found)),
        unread=tuple(unread),
    )


def _tensors(
    look: Opened,
    chosen: Sequence[Item],
    owned: Mapping[int, Owner],
    sharing: Mapping[int, Item],
    found: Measured,
) -> Iterator[TensorStatistics]:
    trained = _groups_of_weights(look)
    for item in chosen:
        holder = sharing.get(id(item.tensor))
        owner = owned.get(id(item.tensor))
        optimizer, group = trained.get(id(item.tensor), (item.optimizer, item.group))
        yield TensorStatistics(
            name=item.name,
            label=item.label,
            role=item.role,
            kind=item.field or item.role if item.role == STATE else item.role,
            parameter=owner.name if owner else None,
            optimizer=optimizer,
            group=group,
            dtype=item.tensor.dtype,
            shape=item.tensor.shape,
            shares=holder.name if holder else None,
            values=found.values[id(item.tensor)],
            model=owner.model if owner else "",
            inferred=owner is not None and owner.inferred,
        )


def _groups_of_weights(look: Opened) -> dict[int, tuple[int | None, int | None]]:
    """Optimizer and group of each weight that has them, by its identity."""
    if look.checkpoint is None:
        return {}
    found: dict[int, tuple[int | None, int | None]] = {}
    for index, optimizer in enumerate(look.checkpoint.optimizers):
        weights = weights_by_slot(look.source, look.checkpoint, optimizer)
        for number, group in enumerate(optimizer.groups):
            for key in group.params:
                if key in weights:
                    found.setdefault(id(weights[key]), (index, number))
    return found


def _by_kind(tensors: Sequence[TensorStatistics]) -> dict[str, ValueSummary]:
    parts: dict[str, list[ValueSummary]] = {}
    for tensor in tensors:
        parts.setdefault(tensor.kind, []).append(tensor.values)
    return {kind: merged(values) for kind, values in parts.items()}


def _groups(
    look: Opened, tensors: Sequence[TensorStatistics], found: Measured
) -> Iterator[GroupStatistics]:
    optimizers: Sequence[Optimizer] = look.checkpoint.optimizers if look.checkpoint else ()
    members: dict[tuple[int | None, int | None], list[TensorStatistics]] = {}
    for tensor in tensors:
        members.setdefault((tensor.optimizer, tensor.group), []).append(tensor)
    for index, optimizer in enumerate(optimizers):
        for number in range(len(optimizer.groups)):
            if here := members.get((index, number)):
                evidence = found.updates.get((index, number), [])
                yield GroupStatistics(index, number, _by_kind(here), _updates(evidence))


def _updates(evidence: Sequence[TensorEvidence]) -> UpdateStatistics | None:
    if not evidence:
        return None
    telling = [item for item in evidence if item.is_telling]
    return UpdateStatistics(
        tensors=len(evidence),
        telling=len(telling),
        update_rms=update_rms(telling) if telling else None,
        persistence=persistence(telling) if telling else None,
        stale=mean(evidence, "stale"),
        zero=mean(evidence, "zero"),
    )

"""The tables of the page: groups, schedulers, values, parameters outside of layers, files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from liontool import wording
from liontool.inspect.statistics import GroupStatistics, Statistics
from liontool.inspect.summary import (
    FileSummary,
    OptimizerSummary,
    SchedulerSummary,
    Summary,
)
from liontool.measure.summary import ValueSummary
from liontool.page.group_rows import GroupRow, columns, elements_title, group_rows
from liontool.page.layers import Layers
from liontool.page.markup import table


def groups(optimizer: OptimizerSummary) -> str:
    """A row for each group, or for those that are alike where they are many."""
    names = columns(optimizer.groups)
    rows = [tuple(_group(row, names)) for row in group_rows(optimizer.groups)]
    elements = elements_title(optimizer.groups)
    head = ("group", "parameters", elements, *names, "moments", "size of state")
    return table("Parameter groups with their hyperparameters", head, rows)


def _group(row: GroupRow, names: Sequence[str]) -> Iterator[str]:
    yield row.label
    yield wording.count(row.parameters)
    yield wording.count(row.elements)
    yield from (wording.value(row.group.fields.get(name)) for name in names)
    yield ", ".join(row.group.dtypes) or wording.NOTHING
    yield wording.size(row.bytes)


def updates(found: Sequence[GroupStatistics], optimizer: int) -> str:
    """What AdamW's moments say of each group's updates."""
    rows = []
    for group in found:
        if group.optimizer == optimizer and (one := group.updates) is not None:
            lasting = wording.share(one.persistence)
            shares = (lasting, wording.share(one.stale), wording.share(one.zero))
            rows.append((group.index, wording.count(one.tensors), number(one.update_rms), *shares))
    head = ("group", "parameters", "RMS of update", "lasting signal", "stale", "no gradient")
    return table("Updates before the learning rate, as AdamW's moments tell them", head, rows)


def schedulers(found: Sequence[SchedulerSummary]) -> str:
    """Each with those nested in it."""
    head = ("scheduler", "learning rates", "position")
    return table("Schedulers", head, list(_schedulers(found)), left=2)


def _schedulers(
    found: Sequence[SchedulerSummary], depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    for one in found:
        rates = (f"{n} {wording.rates(r)}" for n, r in one.rates.items() if n != "_last_lr")
        position = wording.position(one.position, one.length)
        yield f"{'· ' * depth}{one.kind}", "; ".join(rates) or wording.NOTHING, position
        yield from _schedulers(one.children, depth + 1)


def kinds(found: Statistics) -> str:
    """What the values of each kind come to."""
    rows = [(kind, *_numbers(values)) for kind, values in found.kinds.items() if kind != "step"]
    head = ("kind", "values", "RMS", "mean", "least", "largest", "zeros", "NaN", "infinite")
    return table("All values by kind", head, rows)


def _numbers(values: ValueSummary) -> Iterator[str]:
    yield wording.count(values.count)
    yield from map(number, (values.rms, values.mean, values.min, values.max))
    yield wording.share(values.zero_share)
    yield wording.count(values.nan)
    yield wording.count(values.infinite)


def outside(layers: Layers) -> str:
    """RMS of the parameters that belong to no layer, by kind."""
    kinds = [kind for kind in layers.kinds if any(kind in one.kinds for one in layers.outside)]
    rows = [(one.title, *_rms(one.kinds, kinds)) for one in layers.outside]
    if layers.hidden_outside:
        rows.append((f"and {layers.hidden_outside:,} more", *("" for _ in kinds)))
    return table("RMS outside of layers", ("parameter", *kinds), rows)


def _rms(found: Mapping[str, ValueSummary], names: Sequence[str]) -> Iterator[str]:
    return (number(found[name].rms if name in found else None) for name in names)


def files(summary: Summary) -> str:
    """The files of a folder that can hold tensors."""
    rows = [_file(one) for one in summary.files] if summary.is_folder else []
    return table("Files that may hold tensors", ("file", "container", "tensors", "size"), rows, 2)


def _file(one: FileSummary) -> tuple[str, str, str, str]:
    kind = one.container or "unreadable"
    return one.name, kind, wording.count(one.tensors), wording.size(one.bytes)


def number(value: float | None) -> str:
    """Three digits."""
    return wording.NOTHING if value is None else f"{value:.3g}"

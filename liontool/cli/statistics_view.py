"""How statistics are shown: what is wrong first, then the whole, groups, and names by template."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from liontool import wording
from liontool.cli import render
from liontool.cli.bars import bars
from liontool.inspect.statistics import GroupStatistics, Statistics, TensorStatistics
from liontool.inspect.templates import folded
from liontool.measure.summary import ValueSummary, merged

_BARS = 16
_MOST_NAMED = 20
_WIDE = 96  # from so many columns on there is room for norm and mean
_NARROW = 80  # below, exponents have a line of their own
_KIND, _NUMBER, _SHARE, _EXPONENT = 12, 9, 6, 5
_UNSHOWN = "step"
_LEGEND = (
    "exponents: values by their power of two, from the lowest to the highest that occurs (-7 is "
    "0.0078 to 0.0156); zeros, whose share stands before, have none",
)
_UPDATES = (
    "u is AdamW's update before the learning rate; s is the share of the gradient that lasts and "
    "is not noise; stale elements move by less than 1e-4 of the learning rate, zero ones never had "
    "a gradient",
)

Row = tuple[str, ValueSummary]


def show(found: Statistics, *, each: bool = False) -> None:
    """Print all of it.

    Args:
        found: The statistics.
        each: Whether every parameter has its rows, not every template of parameters.
    """
    page = render.Page()
    page.headline(found.path)
    page.facts({"read": f"{wording.count(found.matched, 'tensor')}, {wording.size(found.bytes)}"})
    _special(page, found.tensors)
    _updates(page, found.groups)
    page.heading("Values")
    page.lines(*_head(page), *_all(page, found), *_names(page, found.tensors, each))
    page.items(_LEGEND)


def _special(page: render.Page, tensors: Sequence[TensorStatistics]) -> None:
    """What is not finite, before everything else."""
    bad = [tensor for tensor in tensors if tensor.is_bad]
    if not bad:
        return
    sentences = [
        f"{tensor.title}: {wording.count(tensor.values.nan)} NaN and "
        f"{wording.count(tensor.values.infinite)} infinite among "
        f"{wording.count(tensor.values.count)}"
        for tensor in bad[:_MOST_NAMED]
    ]
    if len(bad) > _MOST_NAMED:
        sentences.append(f"and {len(bad) - _MOST_NAMED:,} more tensors, all of them with --json")
    page.heading("Not finite, left out below")
    page.items(sentences, mark="!", style=render.WARNING)


def _updates(page: render.Page, groups: Sequence[GroupStatistics]) -> None:
    rows = [(_label(group, groups), *_update_cells(group)) for group in groups if group.updates]
    if rows:
        page.heading("Updates by group")
        page.table(("group", "parameters", "rms of u", "s", "stale", "zero"), rows)
        page.items(_UPDATES)


def _label(group: GroupStatistics, groups: Sequence[GroupStatistics]) -> str:
    several = len({other.optimizer for other in groups}) > 1
    return f"{group.optimizer}.{group.index}" if several else str(group.index)


def _update_cells(group: GroupStatistics) -> Iterator[str]:
    assert group.updates is not None
    found = group.updates
    yield wording.count(found.tensors)
    yield _number(found.update_rms)
    yield wording.NOTHING if found.persistence is None else f"{found.persistence:.2f}"
    yield wording.share(found.stale)
    yield wording.share(found.zero)


def _all(page: render.Page, found: Statistics) -> Iterator[str]:
    yield from _section(page, "all", found.kinds.items())
    if len(found.groups) > 1:
        for group in found.groups:
            yield from _section(page, f"group {_label(group, found.groups)}", group.kinds.items())


def _names(page: render.Page, tensors: Sequence[TensorStatistics], each: bool) -> Iterator[str]:
    """Rows for each parameter, or for each template of parameters."""
    models: dict[str, dict[str, list[TensorStatistics]]] = {}
    for tensor in tensors:
        members = models.setdefault(tensor.model, {})
        members.setdefault(tensor.parameter or tensor.name, []).append(tensor)
    for model, members in models.items():
        folds = ((name, (name,)) for name in members)
        for pattern, names in folds if each else _folds(members):
            found = [tensor for name in names for tensor in members[name]]
            yield from _section(page, _titled(model, pattern, found), _kinds(found))


def _folds(names: Iterable[str]) -> Iterator[tuple[str, tuple[str, ...]]]:
    return ((fold.pattern, fold.names) for fold in folded(names))


def _titled(model: str, pattern: str, tensors: Sequence[TensorStatistics]) -> str:
    shares = {tensor.shares for tensor in tensors}
    name = f"{model}: {pattern}" if model else pattern
    return name if None in shares else f"{name}  (the values of {', '.join(map(str, shares))})"


def _kinds(tensors: Iterable[TensorStatistics]) -> Iterable[Row]:
    """Each kind with the values of all its tensors that have some of their own."""
    kinds: dict[str, list[ValueSummary]] = {}
    for tensor in tensors:
        if tensor.shares is None:
            kinds.setdefault(tensor.kind, []).append(tensor.values)
    return [(kind, merged(parts)) for kind, parts in kinds.items()]


# --- rows ---------------------------------------------------------------------------------------


def _head(page: render.Page) -> Iterator[str]:
    names = [name.rjust(_NUMBER) for name in _numbers(page, ValueSummary())]
    yield f"  {'':<{_KIND}}{''.join(names)}{'zero':>{_SHARE}}{_beside(page, 'exponents')}"


def _section(page: render.Page, title: str, rows: Iterable[Row]) -> Iterator[str]:
    shown = [(kind, values) for kind, values in rows if kind != _UNSHOWN]
    yield f"  {title}"
    for kind, values in shown:
        numbers = (_number(value).rjust(_NUMBER) for value in _numbers(page, values).values())
        share = wording.share(values.zero_share)
        spark = _spark(values, page.blocks)
        yield f"    {kind:<{_KIND - 2}}{''.join(numbers)}{share:>{_SHARE}}{_beside(page, spark)}"
        if page.width < _NARROW:
            yield f"      exponents {spark}"


def _beside(page: render.Page, words: str) -> str:
    """What follows in the same line where there is room for it."""
    return f"  {words}" if page.width >= _NARROW else ""


def _numbers(page: render.Page, values: ValueSummary) -> Mapping[str, float | None]:
    found = {"rms": values.rms, "min": values.min, "max": values.max}
    more = {"norm": values.norm, "mean": values.mean} if page.width >= _WIDE else {}
    return {**more, **found}


def _number(value: float | None) -> str:
    """Three digits; two where more would leave no gap."""
    if value is None:
        return wording.NOTHING
    text = f"{value:.3g}"
    return text if len(text) < _NUMBER else f"{value:.1e}"


def _spark(values: ValueSummary, blocks: bool) -> str:
    """ "-20 .:|:. -3": a bar for each exponent, or for two or more where there are many."""
    if values.lowest_exponent is None:
        return wording.NOTHING
    counts = values.exponents
    step = -(-len(counts) // _BARS)
    sums = [sum(counts[i : i + step]) for i in range(0, len(counts), step)]
    (line,) = bars([part or None for part in sums], blocks=blocks)
    last = values.lowest_exponent + len(counts) - 1
    return f"{values.lowest_exponent:>{_EXPONENT - 1}} {line} {last}"

"""How a comparison is shown: the verdict, hyperparameters, schedulers, structure, tensors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from liontool import wording
from liontool.cli import render
from liontool.cli.diff_tensors_view import by_template, identical, scalars, stat_lines, tensor_rows
from liontool.inspect.diff import Diff, LoneTensor, Side
from liontool.inspect.diff_fields import (
    ADDED,
    CHANGED,
    GROUP,
    REMOVED,
    RUN,
    SCHEDULER,
    STATE,
    FieldDifference,
)
from liontool.inspect.diff_tensors import TensorDifference

_LONGEST = 200


def show(diff: Diff, *, stat: bool = False, most: int = 20) -> None:
    """Print all of `diff` for people.

    Args:
        diff: What was found.
        stat: One line for each template of names instead of the worst tensors.
        most: How many lines to show of each list.
    """
    page = render.Page()
    page.sentence(verdict(diff), render.GOOD if diff.same else render.WARNING)
    page.facts({"A": _side(diff.a), "B": _side(diff.b)})
    fields(page, diff.fields, diff.groups)
    _structure(page, diff, most)
    if diff.values_compared:
        _tensors(page, diff, stat, most)
    if diff.notes:
        page.items(diff.notes)


def verdict(diff: Diff) -> str:
    """One line that says how much differs."""
    words = list(_counts(diff))
    if words:
        return f"differ: {', '.join(words)}"
    tensors = wording.count(len(diff.tensors), "tensor")
    if not diff.values_compared:
        return f"same, as far as headers tell: {tensors}, values not compared"
    kinds = {one.verdict for one in diff.tensors}
    if "close" in kinds:
        return f"same within the tolerance: {tensors}"
    if "equal" in kinds:
        return f"same: {tensors}, equal in value though not in every bit"
    return f"same: {tensors}, bit for bit"


def _counts(diff: Diff) -> Iterator[str]:
    yield from (
        "optimizer class" if one.field == "class" else one.field
        for one in diff.fields
        if one.part == RUN
    )
    for noun, parts in (("hyperparameter", (GROUP, STATE)), ("scheduler field", (SCHEDULER,))):
        names = {_counted(one) for one in diff.fields if one.part in parts}
        if names:
            yield wording.count(len(names), noun)
    for tensors, words in (
        (diff.only_a, "only in A"),
        (diff.only_b, "only in B"),
        (diff.reshaped, "reshaped"),
        (diff.recast, "recast"),
    ):
        if tensors:
            yield f"{wording.count(len(tensors), 'tensor')} {words}"
    if diff.moved:
        yield f"{wording.count(len(diff.moved), 'parameter')} in another order"
    if diff.differing:
        yield f"values of {len(diff.differing):,} of {wording.count(len(diff.tensors), 'tensor')}"


def _counted(one: FieldDifference) -> str:
    """The same hyperparameter in several groups, or of several parameters, counts once."""
    if one.part == SCHEDULER:
        return f"{one.where}.{one.field}"
    return f"{one.where.rpartition(one.part)[0]}{one.field}"


def _side(side: Side) -> str:
    kind = ", ".join(word for word in (side.framework or "no optimizer", *side.containers) if word)
    size = wording.size(side.bytes)
    return f"{side.path}: {kind}, {wording.count(side.tensors, 'tensor')}, {size}"


def fields(page: render.Page, differences: Sequence[FieldDifference], groups: int) -> None:
    """Hyperparameters and schedulers, as `edit --dry-run` shows them too.

    Args:
        page: Where to.
        differences: What differs.
        groups: How many pairs of groups were compared.
    """
    own = [one for one in differences if one.part != SCHEDULER]
    _table(page, "Hyperparameters", list(_collapsed(own, groups)))
    driving = [one for one in differences if one.part == SCHEDULER]
    _table(page, "Scheduler", [(f"{one.where}.{one.field}", one) for one in driving])


def _collapsed(
    differences: Sequence[FieldDifference], groups: int
) -> Iterator[tuple[str, FieldDifference]]:
    """What is the same in all groups, or for all parameters, stands once."""
    by_field: dict[tuple[str, str], list[FieldDifference]] = {}
    for one in differences:
        by_field.setdefault((one.part, one.field), []).append(one)
    for (part, name), same in by_field.items():
        first = same[0]
        alike = all((o.change, o.a, o.b) == (first.change, first.a, first.b) for o in same)
        if part == RUN or (part == GROUP and len(same) == groups and alike):
            yield name, first
        elif part == STATE and alike:
            yield f"{name} of {wording.count(len(same), 'parameter')}", first
        else:
            yield from ((f"{one.where}.{name}", one) for one in same)


def _table(page: render.Page, heading: str, rows: Sequence[tuple[str, FieldDifference]]) -> None:
    if not rows:
        return
    page.heading(heading)
    changed = [(name, *_cells(one), _factor(one)) for name, one in rows if one.change == CHANGED]
    if changed:
        page.table(("", "A", "B", ""), changed, left=4)
    lone = {
        where: ", ".join(
            f"{name} {wording.value(value)}"
            for name, value in ((n, one.a if where == "only in A" else one.b) for n, one in picked)
        )
        for where, picked in (
            ("only in A", [row for row in rows if row[1].change == REMOVED]),
            ("only in B", [row for row in rows if row[1].change == ADDED]),
        )
        if picked
    }
    if lone:
        page.facts(lone)


def _cells(one: FieldDifference) -> tuple[str, str]:
    """Both values; in full where they look the same in short."""
    for shown in (wording.rates, wording.value):
        a, b = shown(one.a), shown(one.b)
        if a != b:
            return a, b
    return repr(one.a)[:_LONGEST], repr(one.b)[:_LONGEST]


def _factor(one: FieldDifference) -> str:
    """ "x 3" or "/ 3" for what is no count."""
    factor = one.factor
    if factor is None or factor <= 0 or one.part == RUN or _is_count(one.a):
        return ""
    mark, size = ("x", factor) if factor >= 1 else ("/", 1 / factor)
    return f"{mark} {size:.6g}"


def _is_count(value: Any) -> bool:
    return all(isinstance(item, int) for item in (value if isinstance(value, list) else [value]))


def _structure(page: render.Page, diff: Diff, most: int) -> None:
    rows = [
        *_lone_rows("only in A", diff.only_a),
        *_lone_rows("only in B", diff.only_b),
        *_changed_rows("reshaped", diff.reshaped),
        *_changed_rows("recast", [one for one in diff.recast if one not in diff.reshaped]),
    ]
    if not rows and not diff.moved:
        return
    page.heading("Structure")
    if rows:
        page.table(("", "tensors", "number", "what"), _cut(rows, most), left=4)
    if diff.moved:
        names = ", ".join(diff.moved[:most]) + (", ..." if len(diff.moved) > most else "")
        page.facts({"in another order": names})


def _cut(rows: list[tuple[str, ...]], most: int) -> list[tuple[str, ...]]:
    if len(rows) <= most:
        return rows
    return [*rows[:most], ("...", f"{len(rows) - most:,} more lines: --max, --json", "", "")]


def _lone_rows(word: str, tensors: Sequence[LoneTensor]) -> Iterator[tuple[str, ...]]:
    for pattern, same in by_template(tensors):
        dtypes = ", ".join(dict.fromkeys(one.dtype for one in same))
        size = wording.size(sum(one.bytes for one in same))
        yield word, pattern, wording.count(len(same)), f"{dtypes}, {size}"


def _changed_rows(word: str, tensors: Iterable[TensorDifference]) -> Iterator[tuple[str, ...]]:
    """What became of tensors, those that changed alike by template."""
    alike: dict[str, list[TensorDifference]] = {}
    for one in tensors:
        alike.setdefault(_change(one), []).append(one)
    for change, changed in alike.items():
        for pattern, same in by_template(changed):
            yield word, pattern, wording.count(len(same)), change


def _change(one: TensorDifference) -> str:
    shapes = f"{list(one.shape_a)} -> {list(one.shape_b)}" if one.shape_a != one.shape_b else ""
    dtypes = f"{one.dtype_a} -> {one.dtype_b}" if one.is_recast else ""
    return ", ".join(word for word in (dtypes, shapes) if word)


def _tensors(page: render.Page, diff: Diff, stat: bool, most: int) -> None:
    if stat:
        page.heading("Tensors by kind")
        head, lines = stat_lines(diff.tensors)
        page.table(head, lines, left=len(head))
        return
    numbers, rows = scalars(diff.differing), tensor_rows(diff.differing)
    if numbers or rows[1]:
        page.heading("Values")
    if numbers:
        page.table(("of one element", "A", "B"), numbers[:most], left=3)
    if rows[1]:
        page.table(rows[0], rows[1][:most], left=len(rows[0]))
    if len(rows[1]) > most:
        page.items([f"and {len(rows[1]) - most:,} more that differ less: --max, --stat or --json"])
    facts: Mapping[str, Any] = identical(diff.tensors)
    if facts:
        page.facts(facts)

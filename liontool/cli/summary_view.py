"""How a checkpoint's summary is shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool import wording
from liontool.cli import curve_view, render
from liontool.inspect.findings import NOTE, Finding
from liontool.inspect.summary import (
    FileSummary,
    GroupSummary,
    OptimizerSummary,
    SchedulerSummary,
    Summary,
)
from liontool.page.group_rows import GroupRow, columns, elements_title, group_rows

_LONGEST_FACT = 60
_SHORT_FACT = 10
_USUAL = ("byte order", "little")


def show(summary: Summary) -> None:
    """Print all of `summary` for people."""
    page = render.Page()
    page.headline(summary.path)
    page.facts(dict(_facts(summary)))
    for optimizer in summary.optimizers:
        _optimizer(page, optimizer)
    _resume(page, summary)
    if summary.schedulers:
        page.heading("Schedulers that belong to no one optimizer")
        _schedulers(page, summary.schedulers)
    if summary.is_folder:
        _files(page, summary.files)
    if summary.no_optimizer is not None:
        page.items([summary.no_optimizer])


def _facts(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "container", _container(summary)
    if summary.no_optimizer is None:
        yield "framework", summary.framework or ""
    else:
        yield "optimizer", "none found"
    if summary.step is not None:
        yield "step", wording.count(summary.step)
    if summary.epoch is not None:
        yield "epoch", wording.value(summary.epoch)
    for name, value in summary.facts.items():
        if len(text := wording.value(value)) <= _LONGEST_FACT:
            yield name, text
    if not summary.is_folder:
        for file in summary.files:
            yield from _format(file)
    yield "tensors", _tensors(summary.files)


def _format(file: FileSummary) -> Iterator[tuple[str, str]]:
    """Short facts on one line, longer ones on their own."""
    facts = file.facts.items()
    short = {n: v for n, v in facts if len(v) <= _SHORT_FACT and (n, v) != _USUAL}
    if short:
        yield "format", ", ".join(f"{name} {value}" for name, value in short.items())
    for name, value in facts:
        if _SHORT_FACT < len(value) <= _LONGEST_FACT:
            yield name, value


def _container(summary: Summary) -> str:
    kind = ", ".join(file.container for file in summary.files)
    if summary.is_folder:
        kind = f"folder, {wording.count(summary.file_count, 'file')}"
    return f"{kind}, {wording.size(summary.bytes)}"


def _tensors(files: Sequence[FileSummary]) -> str:
    totals: dict[str, int] = {}
    for file in files:
        for dtype, size in file.dtypes.items():
            totals[dtype] = totals.get(dtype, 0) + size
    tensors = wording.count(sum(file.tensors for file in files))
    elements = wording.count(sum(file.elements for file in files), "element")
    dtypes = f" ({', '.join(totals)})" if totals else ""
    return f"{tensors}, {elements}, {wording.size(sum(totals.values()))}{dtypes}"


def _optimizer(page: render.Page, optimizer: OptimizerSummary) -> None:
    where = f" ({optimizer.label})" if optimizer.label else ""
    page.heading(f"Optimizer: {optimizer.kind}{where}")
    page.facts(dict(_optimizer_facts(optimizer)))
    rows = group_rows(optimizer.groups)
    names = columns(optimizer.groups)
    common = [name for name in names if len({_cell(row.group, name) for row in rows}) == 1]
    dtypes = sorted({_dtypes(row.group) for row in rows if row.group.dtypes})
    shared = [(name, _cell(rows[0].group, name)) for name in common]
    if len(dtypes) == 1:
        shared.append(("moments", dtypes[0]))
    page.table(("all groups", "value"), shared)
    varying = [name for name in names if name not in common]
    moments = ["moments"] if len(dtypes) > 1 else []
    page.table(
        ("group", "params", elements_title(optimizer.groups), *varying, *moments, "size"),
        [tuple(_group_cells(row, varying, bool(moments))) for row in rows],
    )
    if optimizer.schedulers:
        labels = ", ".join(scheduler.label for scheduler in optimizer.schedulers)
        page.heading(f"Scheduler ({labels})" if labels else "Scheduler")
        _schedulers(page, optimizer.schedulers)
        for scheduler in optimizer.schedulers:
            if scheduler.curve is not None:
                curve_view.show(page, scheduler.curve)


def _resume(page: render.Page, summary: Summary) -> None:
    for optimizer in summary.optimizers:
        several = f" with {optimizer.label}" if len(summary.optimizers) > 1 else ""
        page.heading(f"What a resume will do{several}")
        page.items(optimizer.resume)
    notes = [one for one in summary.findings if one.severity == NOTE]
    alarms = [one for one in summary.findings if one.severity != NOTE]
    for found, mark, style in ((alarms, "!", render.WARNING), (notes, "-", "")):
        if found:
            page.items([_sentence(one) for one in found], mark=mark, style=style)


def _sentence(finding: Finding) -> str:
    return f"{finding.where}: {finding.text}" if finding.where else finding.text


def _group_cells(row: GroupRow, names: Sequence[str], moments: bool) -> Iterator[str]:
    yield row.label
    yield wording.count(row.parameters)
    yield wording.count(row.elements)
    yield from (_cell(row.group, name) for name in names)
    if moments:
        yield _dtypes(row.group)
    yield wording.size(row.bytes)


def _dtypes(group: GroupSummary) -> str:
    return ", ".join(group.dtypes) or wording.NOTHING


def _optimizer_facts(optimizer: OptimizerSummary) -> Iterator[tuple[str, str]]:
    if optimizer.assumed:
        yield "class", "AdamW is assumed; before torch 2.7 Adam's files look the same"
    if optimizer.without_state:
        yield "without state", wording.count(optimizer.without_state, "parameter")
    if optimizer.bytes_adamw is not None and optimizer.bytes_lion is not None:
        adamw, lion = wording.size(optimizer.bytes_adamw), wording.size(optimizer.bytes_lion)
        yield "memory", f"{adamw} under AdamW, {lion} under Lion"


def _cell(group: GroupSummary, name: str) -> str:
    return wording.value(group.fields.get(name))


def _schedulers(page: render.Page, schedulers: Sequence[SchedulerSummary]) -> None:
    page.table(("class", "position", "learning rates"), list(_scheduler_rows(schedulers)), left=3)


def _scheduler_rows(
    schedulers: Sequence[SchedulerSummary], depth: int = 0
) -> Iterator[tuple[str, str, str]]:
    for scheduler in schedulers:
        rates = (f"{n} {wording.rates(r)}" for n, r in scheduler.rates.items() if n != "_last_lr")
        yield (
            f"{'  ' * depth}{scheduler.kind}",
            wording.position(scheduler.position, scheduler.length),
            "; ".join(rates) or wording.NOTHING,
        )
        yield from _scheduler_rows(scheduler.children, depth + 1)


def _files(page: render.Page, files: Sequence[FileSummary]) -> None:
    page.heading("Files that may hold tensors")
    page.table(
        ("file", "container", "tensors", "size"),
        [_file_cells(file) for file in files],
        left=2,
    )
    problems = [file.problem for file in files if file.problem]
    if problems:
        page.items(problems, mark="!", style=render.WARNING)


def _file_cells(file: FileSummary) -> tuple[str, ...]:
    container = file.container or "unreadable"
    return file.name, container, wording.count(file.tensors), wording.size(file.bytes)

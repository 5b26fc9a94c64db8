"""How a conversion is shown: the verdict first, last what the user has to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from liontool import wording
from liontool.cli import estimate_view, render
from liontool.convert.report import ConversionReport, OptimizerReport

_NAMES = {"lion": "Lion", "lion-sf": "LionSF"}
_MOMENTA = {
    "copy": "Adam's first moment, byte for byte",
    "scaled": "Adam's first moment, scaled to the size of Lion's own",
    "zeros": "starts from zeros",
}
_SIZES = ("parameters", "elements")
_ALWAYS_SHOWN = ("lr", "initial_lr", "weight_decay", "betas")
_Fields = Mapping[str, Any]


def show(report: ConversionReport) -> None:
    """Print all of `report` for people."""
    page = render.Page()
    _verdict(page, report)
    for optimizer in report.optimizers:
        where = _where(report, optimizer)
        _groups(page, optimizer, _NAMES[report.to], where)
        _schedulers(page, optimizer, where)
        if optimizer.dropped:
            page.facts({"dropped": ", ".join(optimizer.dropped)})
    _savings(page, report)
    for optimizer in report.optimizers:
        if optimizer.estimate is not None:
            estimate_view.show(page, optimizer.estimate, _label(report, optimizer))
    _notices(page, report)
    _script(page, report)


def _where(report: ConversionReport, optimizer: OptimizerReport) -> str:
    label = _label(report, optimizer)
    return f" ({label})" if label else ""


def _label(report: ConversionReport, optimizer: OptimizerReport) -> str:
    """What tells an optimizer from the others, if there are any."""
    return optimizer.label if len(report.optimizers) > 1 else ""


def _verdict(page: render.Page, report: ConversionReport) -> None:
    if report.dry_run:
        page.headline(
            f"Dry run, nothing written: {report.source} would become {report.output}",
            render.WARNING,
        )
    else:
        page.headline(f"Converted {report.source} to {report.output}", render.GOOD)
    kinds = " and ".join(dict.fromkeys(optimizer.kind for optimizer in report.optimizers))
    ratios = ", ".join(dict.fromkeys(wording.value(o.ratio) for o in report.optimizers))
    held = ", and held constant" if report.to == "lion-sf" else ""
    facts = {
        "optimizer": f"{kinds} is now {_NAMES[report.to]}, to be loaded by {report.package}",
        "learning rate": f"divided by {ratios} wherever it is kept{held}",
        "momentum": _MOMENTA[report.momentum],
        "found": f"{report.framework}, {report.container}",
    }
    if report.step is not None:
        facts["step"] = wording.count(report.step)
    page.facts(facts)


def _groups(page: render.Page, optimizer: OptimizerReport, target: str, where: str) -> None:
    pairs = list(zip(optimizer.groups_before, optimizer.groups_after, strict=True))
    if not pairs:
        return
    names = list(_shown(pairs))
    common = [name for name in names if _is_common(name, pairs)]
    varying = [name for name in names if name not in common]
    page.heading(f"Parameter groups{where}")
    head = "all groups" if len(pairs) > 1 else "hyperparameter"
    if common:
        page.table(
            (head, optimizer.kind, target),
            [(name, *_cells(name, *pairs[0])) for name in common],
        )
    page.table(
        ("group", *_SIZES, *varying),
        [(str(index), *_group_cells(varying, *pair)) for index, pair in enumerate(pairs)],
    )


def _group_cells(names: Sequence[str], before: _Fields, after: _Fields) -> Iterator[str]:
    yield from (wording.count(before.get(name)) for name in _SIZES)
    yield from (_change(name, before, after) for name in names)


def _shown(pairs: Sequence[tuple[_Fields, _Fields]]) -> Iterator[str]:
    """Names of the fields worth a place: those everybody looks for, and those that change."""
    found = dict.fromkeys(name for pair in pairs for group in pair for name in group)
    for name in (*_ALWAYS_SHOWN, *(name for name in found if name not in _ALWAYS_SHOWN)):
        if name in _SIZES or name not in found:
            continue
        if name in _ALWAYS_SHOWN or any(
            name in after and before.get(name) != after[name] for before, after in pairs
        ):
            yield name


def _is_common(name: str, pairs: Sequence[tuple[_Fields, _Fields]]) -> bool:
    first = _cells(name, *pairs[0])
    return all(_cells(name, *pair) == first for pair in pairs[1:])


def _cells(name: str, before: _Fields, after: _Fields) -> tuple[str, str]:
    return wording.value(before.get(name)), wording.value(after.get(name))


def _change(name: str, before: _Fields, after: _Fields) -> str:
    old, new = _cells(name, before, after)
    return old if old == new else f"{old} -> {new}"


def _schedulers(page: render.Page, optimizer: OptimizerReport, where: str) -> None:
    pairs = zip(optimizer.schedulers_before, optimizer.schedulers_after, strict=True)
    rows = [row for before, after in pairs for row in _scheduler_rows(before, after)]
    if rows:
        page.heading(f"Scheduler{where}")
        page.table(("learning rates", "before", "after"), rows)


def _scheduler_rows(
    before: _Fields, after: _Fields, indent: str = ""
) -> Iterator[tuple[str, str, str]]:
    position = wording.position(before["position"], before["length"])
    yield f"{indent}{before['name']} at {position}", "", ""
    for name in dict.fromkeys((*before["rates"], *after["rates"])):
        old, new = (wording.rates(fields["rates"].get(name)) for fields in (before, after))
        yield f"{indent}  {name}", old, new
    for old_child, new_child in zip(before["children"], after["children"], strict=True):
        yield from _scheduler_rows(old_child, new_child, indent + "  ")


def _savings(page: render.Page, report: ConversionReport) -> None:
    page.heading("Saved")
    page.facts(
        {
            "on disk": wording.saving(report.bytes_before, report.bytes_after),
            "optimizer memory": wording.saving(report.state_bytes_before, report.state_bytes_after),
        }
    )


def _notices(page: render.Page, report: ConversionReport) -> None:
    if report.notices:
        page.heading("Please note")
        texts = (f"{notice.text} [{notice.id}]" for notice in report.notices)
        page.items(texts, mark="!", style=render.WARNING)


def _script(page: render.Page, report: ConversionReport) -> None:
    if report.script:
        page.headline("What you must change in your script")
        for block in report.script:
            page.lines(*block.rstrip("\n").split("\n"))
    if report.advice:
        page.heading("Advice")
        page.items(report.advice)

"""What a checkpoint is, as pairs of words."""

from __future__ import annotations

from collections.abc import Iterator

from liontool import wording
from liontool.inspect.summary import OptimizerSummary, Summary

_LONGEST = 60


def facts(summary: Summary) -> Iterator[tuple[str, str]]:
    """The most important first."""
    for optimizer in summary.optimizers:
        yield "optimizer", _optimizer(optimizer)
    yield "framework", summary.framework or "no optimizer found"
    if summary.step is not None:
        yield "step", wording.count(summary.step)
    if summary.epoch is not None:
        yield "epoch", wording.value(summary.epoch)
    yield "container", _container(summary)
    elements = sum(file.elements for file in summary.files)
    tensors = sum(file.tensors for file in summary.files)
    yield "tensors", wording.count(tensors)
    yield "elements", wording.count(elements)
    yield "types", ", ".join(dict.fromkeys(t for file in summary.files for t in file.dtypes)) or "-"
    for optimizer in summary.optimizers:
        if optimizer.bytes_adamw is not None and optimizer.bytes_lion is not None:
            adamw, lion = map(wording.size, (optimizer.bytes_adamw, optimizer.bytes_lion))
            yield "optimizer's memory", f"AdamW {adamw}, Lion {lion}"
    for name, item in summary.facts.items():
        if len(shown := wording.value(item)) <= _LONGEST:
            yield name, shown


def _optimizer(optimizer: OptimizerSummary) -> str:
    where = f" ({optimizer.label})" if optimizer.label else ""
    return f"{optimizer.kind}{', assumed' if optimizer.assumed else ''}{where}"


def _container(summary: Summary) -> str:
    if summary.is_folder:
        kind = f"folder, {wording.count(summary.file_count, 'file')}"
    else:
        kind = ", ".join(file.container for file in summary.files)
    return f"{kind}, {wording.size(summary.bytes)}"

"""Which scheduler drives which optimizer: told by the learning rates that both keep.

A scheduler writes `initial_lr` into every group of its optimizer and keeps the same numbers in
`base_lrs` (timm's: in `base_values`), and the last rates it set in `_last_lr`. Position decides
only between optimizers that look alike, and only where there is one scheduler for each optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from liontool.checkpoint.document import Value
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Optimizer, Scheduler

Numbers = tuple[float, ...]

_BASES = ("base_lrs", "base_values")


def pair(
    optimizers: Sequence[Optimizer], schedulers: Sequence[Scheduler]
) -> tuple[tuple[Optimizer, ...], tuple[Scheduler, ...]]:
    """Give each optimizer its schedulers.

    Returns:
        The optimizers, and the schedulers that could be told to belong to no single one.
    """
    owners = [_owner(index, schedulers, optimizers) for index in range(len(schedulers))]
    paired = tuple(
        replace(
            optimizer,
            schedulers=tuple(
                scheduler
                for scheduler, owner in zip(schedulers, owners, strict=True)
                if owner == index
            ),
        )
        for index, optimizer in enumerate(optimizers)
    )
    loose = (s for s, owner in zip(schedulers, owners, strict=True) if owner is None)
    return paired, tuple(loose)


def _owner(
    index: int, schedulers: Sequence[Scheduler], optimizers: Sequence[Optimizer]
) -> int | None:
    scheduler = schedulers[index]
    fitting = [i for i, optimizer in enumerate(optimizers) if _fits(scheduler, optimizer)]
    if len(optimizers) == 1:
        return 0 if fitting else None
    agreeing = [i for i in fitting if _agrees(scheduler, optimizers[i])]
    if len(agreeing) == 1:
        return agreeing[0]
    one_each = len(schedulers) == len(optimizers)
    return index if one_each and index in agreeing else None


def _fits(scheduler: Scheduler, optimizer: Optimizer) -> bool:
    """Whether it holds as many learning rates as the optimizer has groups."""
    return _count(scheduler) in (None, len(optimizer.groups))


def _count(scheduler: Scheduler) -> int | None:
    for name in (*_BASES, "_last_lr", "min_lrs"):
        values = scheduler.fields.get(name)
        if isinstance(values, Sequence):
            return len(values)
    counts = (_count(child) for child in scheduler.children)
    return next((count for count in counts if count is not None), None)


def _agrees(scheduler: Scheduler, optimizer: Optimizer) -> bool:
    """Whether its rates are those in the groups; one that keeps none agrees with nothing."""
    bases, last = _rates(scheduler, *_BASES), _rates(scheduler, "_last_lr")
    initial = _group_rates(optimizer, "initial_lr")
    if bases is not None:
        return bases == initial
    return last is not None and last == _group_rates(optimizer, "lr")


def _rates(scheduler: Scheduler, *names: str) -> Numbers | None:
    """A list of rates of the scheduler itself, or else of the first nested one that has it."""
    for name in names:
        values = scheduler.fields.get(name)
        if isinstance(values, Sequence):
            return _numbers(values)
    found = (_rates(child, *names) for child in scheduler.children)
    return next((rates for rates in found if rates is not None), None)


def _group_rates(optimizer: Optimizer, name: str) -> Numbers | None:
    return _numbers([group.fields.get(name) for group in optimizer.groups])


def _numbers(values: Sequence[Value]) -> Numbers | None:
    numbers = [number(value) for value in values]
    known = tuple(value for value in numbers if value is not None)
    return known if len(known) == len(numbers) else None

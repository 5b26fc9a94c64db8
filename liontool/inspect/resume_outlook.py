"""What a resume will do with hyperparameters and state, in sentences."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.checkpoint.learning_rates import cycled_betas, number
from liontool.checkpoint.model import Optimizer
from liontool.inspect.curve_words import by_group
from liontool.inspect.lr_curve import Curve
from liontool.inspect.scheduler_outlook import sentences

_FIELDS = ("lr", "momentum", "betas", "weight_decay")


def outlook(optimizer: Optimizer, framework: str, curves: Sequence[Curve]) -> tuple[str, ...]:
    """What a user should know before training goes on; what is wrong is in the findings.

    Args:
        optimizer: As it was saved.
        framework: Whose loader will read it.
        curves: What remains of the curve of each of its schedulers.
    """
    return (
        *_hyperparameters(optimizer, framework),
        *_schedulers(optimizer, framework, curves),
        *_cycled(optimizer),
        *_order(optimizer, framework),
    )


def _hyperparameters(optimizer: Optimizer, framework: str) -> Iterator[str]:
    names = [n for n in _FIELDS if n in optimizer.groups[0].fields]
    if not names:
        return
    listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
    rates = [number(group.fields.get("lr")) for group in optimizer.groups]
    text = f"{listed} of the file win over those in the code"
    if framework == "hf-trainer":
        text += ", and over TrainingArguments"
    yield f"{text}: the next step is made with lr {by_group(rates)}"


def _schedulers(optimizer: Optimizer, framework: str, curves: Sequence[Curve]) -> Iterator[str]:
    if not optimizer.schedulers:
        yield "no scheduler's state in the file is its own: lr stays unless the script changes it"
    for scheduler, curve in zip(optimizer.schedulers, curves, strict=True):
        yield from sentences(scheduler, curve, optimizer.groups, framework == "hf-trainer")


def _cycled(optimizer: Optimizer) -> Iterator[str]:
    cycles = {cycled_betas(group, optimizer.schedulers) for group in optimizer.groups}
    for cycle in cycles - {None}:
        low, high = cycle or (0, 0)
        yield f"the scheduler sets beta1 as well, at every step, between {low:g} and {high:g}"


def _order(optimizer: Optimizer, framework: str) -> Iterator[str]:
    if framework in ("hf-trainer", "run"):  # Run itself compares the names
        return
    named = any(slot.name is not None for slot in optimizer.slots.values())
    if optimizer.slots and not (named and framework == "liontool-state"):
        why = "as the file has no names" if not named else "whatever the names in the file"
        what = "build the groups in the order of before"
        yield f"state finds its parameter by position, {why}: {what}"
    if optimizer.schedulers and framework == "plain":
        yield (
            "make the scheduler first, then load the optimizer, then the scheduler: making one "
            "sets lr as for step 0"
        )

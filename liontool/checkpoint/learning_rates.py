"""Where groups and schedulers keep an absolute learning rate: tables, and what can be done by them.

Initial, peak and end rates must change together. Factors (gamma, start_factor), lengths (T_max,
milestones) and metrics (`best`) are no learning rates and are left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any

from liontool.checkpoint.document import Opaque, TensorRef, Value, is_tuple
from liontool.checkpoint.model import Fields, ParamGroup, Scheduler
from liontool.checkpoint.plain_values import plain

GROUP_KEYS = ("lr", "initial_lr", "max_lr", "min_lr", "swa_lr")
"""Absolute learning rates in a parameter group. OneCycleLR keeps its whole curve there."""

REFERENCE_KEYS = ("reference_lr", "max_lr_snapshot")
"""Learning rates in a group that a decay is relative to, in our Lion's and in timm's."""

SCHEDULER_KEYS = frozenset(
    {"base_lrs", "_last_lr", "eta_min", "max_lrs", "min_lrs", "default_min_lr", "_init_lrs"}
)
"""Absolute learning rates in the state of any scheduler, numbers or one number a group."""


# Words in the names of fields that may hold a learning rate.
_RATE_WORDS = frozenset({"lr", "lrs", "value", "values"})


@dataclass(frozen=True)
class Kind:
    """One scheduler class, known by keys that no other has all of.

    Attributes:
        name: The class, or the classes that cannot be told apart.
        keys: Keys that its state has.
        absent: Keys that its state has not.
        rates: Absolute learning rates besides `SCHEDULER_KEYS`.
        constant: Values that make it hold its learning rate for good, once all its rates are
            equal; None where code outside the file computes the learning rate.
        end: The field that says how long it runs.
        moves: The field that says what it moves, where that may be something else than `lr`.
        note: What is to be done outside the file; `{divide}` and `{multiply}` are what to do.
        decays: Weight decays that it drives besides.
    """

    name: str
    keys: frozenset[str]
    absent: frozenset[str] = frozenset()
    rates: frozenset[str] = frozenset()
    constant: tuple[tuple[str, Any], ...] | None = ()
    end: str = ""
    moves: str = ""
    note: str = ""
    decays: frozenset[str] = frozenset()

    def fits(self, state: Mapping[Any, Value]) -> bool:
        """Whether `state` is that of a scheduler of this kind."""
        keys = state.keys()
        if not self.keys <= keys or self.absent & keys:
            return False
        return not self.moves or state[self.moves] == "lr"


# A cosine with this period stays at cos(0) = 1.0 in double precision for the first billion steps.
_FOR_EVER = 10**18


def _kind(
    name: str, keys: str, absent: str = "", rates: str = "", end: str = "", **constant: Any
) -> Kind:
    present, missing, more = (frozenset(words.split()) for words in (keys, absent, rates))
    return Kind(name, present, missing, more, tuple(constant.items()), end)


FOREIGN: tuple[Kind, ...] = (
    replace(
        _kind("timm scheduler", "base_values param_group_field",
              rates="base_values lr_min warmup_lr_init warmup_steps"),
        constant=None, moves="param_group_field",
    ),
    replace(
        _kind("Megatron's scheduler", "max_lr min_lr lr_decay_style num_steps",
              rates="max_lr min_lr", end="lr_decay_steps"),
        constant=None,
        note="Megatron compares it with its arguments, and it sets the weight decay too: {divide} "
        "--lr and --min-lr, {multiply} --weight-decay, and give --override-opt_param-scheduler",
        decays=frozenset({"start_wd", "end_wd"}),
    ),
)  # fmt: skip
"""Schedulers that are not torch's, told by their keys alone."""

KINDS: tuple[Kind, ...] = (
    replace(_kind("LambdaLR or MultiplicativeLR", "lr_lambdas"), constant=None),
    _kind("StepLR", "step_size gamma", "step_ratio", gamma=1.0),
    _kind("MultiStepLR", "milestones gamma", gamma=1.0),
    _kind("ConstantLR", "factor total_iters", end="total_iters", factor=1.0),
    _kind("LinearLR", "start_factor end_factor", end="total_iters",
          start_factor=1.0, end_factor=1.0),
    _kind("PolynomialLR", "power total_iters", end="total_iters", power=0.0),
    _kind("CosineAnnealingLR", "T_max eta_min", end="T_max", T_max=_FOR_EVER, eta_min=0.0),
    _kind("CosineAnnealingWarmRestarts", "T_0 T_i T_cur", end="T_i",
          T_0=_FOR_EVER, T_i=_FOR_EVER, eta_min=0.0),
    _kind("OneCycleLR", "total_steps _schedule_phases", end="total_steps"),
    _kind("CyclicLR", "step_ratio total_size max_lrs", end="total_size"),
    _kind("ReduceLROnPlateau", "patience min_lrs eps", "reset_start", rates="eps", factor=1.0),
    _kind("GreedyLR", "reset_start _init_lrs patience", rates="eps", factor=1.0),
    _kind("SWALR", "anneal_epochs _anneal_strategy", end="anneal_epochs", anneal_epochs=0),
    _kind("SequentialLR", "_milestones"),
    _kind("ExponentialLR", "gamma base_lrs", "step_size milestones step_ratio", gamma=1.0),
    *FOREIGN,
)  # fmt: skip
"""Every scheduler that can be told by its state. ChainedScheduler is told by its children."""

CHAINED = Kind("ChainedScheduler", frozenset())


def kind_of(scheduler: Scheduler) -> Kind | None:
    """The class of a scheduler as far as its keys tell it, else None."""
    for kind in KINDS:
        if kind.fits(scheduler.fields):
            return kind
    return CHAINED if scheduler.children else None


def rate_keys(scheduler: Scheduler) -> tuple[str, ...]:
    """The fields of a scheduler's own state that hold absolute learning rates."""
    kind = kind_of(scheduler)
    names = SCHEDULER_KEYS | (kind.rates if kind else frozenset())
    return tuple(name for name in scheduler.fields if name in names)


def decay_keys(scheduler: Scheduler) -> tuple[str, ...]:
    """The fields of a scheduler's own state that hold absolute weight decays."""
    names: set[str] = set()
    for kind in KINDS:
        if kind.keys <= scheduler.fields.keys():
            names |= kind.decays
            if kind.moves and scheduler.fields[kind.moves] == "weight_decay":
                names |= kind.rates
    return tuple(name for name in scheduler.fields if name in names)


def scale_group(fields: Fields, ratio: float) -> Fields:
    """The group with every absolute learning rate divided by `ratio`."""
    return _scaled_fields(fields, [name for name in GROUP_KEYS if name in fields], ratio)


def scale_scheduler(scheduler: Scheduler, ratio: float) -> Scheduler:
    """The scheduler and its children with every absolute learning rate divided by `ratio`."""
    return replace(
        scheduler,
        fields=_scaled_fields(scheduler.fields, rate_keys(scheduler), ratio),
        children=tuple(scale_scheduler(child, ratio) for child in scheduler.children),
    )


def _scaled_fields(fields: Fields, names: Sequence[str], ratio: float) -> Fields:
    scaled = {name: divided(fields[name], ratio) for name in names}
    changes = {name: value for name, value in scaled.items() if value is not fields[name]}
    return fields.replaced(changes) if changes else fields


def divided(value: Value, ratio: float) -> Value:
    """`value` with every number in it divided by `ratio`; see `changed`."""
    return value if ratio == 1 else changed(value, lambda number: number / ratio)


def multiplied(value: Value, factor: float) -> Value:
    """`value` with every number in it multiplied by `factor`; see `changed`."""
    return value if factor == 1 else changed(value, lambda number: number * factor)


def changed(value: Value, change: Callable[[float], float]) -> Value:
    """`value` with `change` made to every number but 0 in it; tensors keep dtype and shape.

    Out of place: two entries that share one tensor are each changed once. What is no number comes
    back as the very same object, and so does a sequence in which nothing changes.
    """
    if isinstance(value, TensorRef):
        return _changed_tensor(value, change)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return change(value) if value else value
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        items = [changed(item, change) for item in value]
        if all(new is old for new, old in zip(items, value, strict=True)):
            return value
        return tuple(items) if is_tuple(value) else items
    return value


def _changed_tensor(tensor: TensorRef, change: Callable[[float], float]) -> TensorRef:
    from liontool.checkpoint import values

    if not values.is_float(tensor.dtype):
        return tensor
    if tensor.numel == 1:
        numbers = [float(values.scalar(tensor))]
    else:
        numbers = [float(number) for block in values.blocks(tensor) for number in block.ravel()]
    return values.from_scalars(tensor.dtype, [change(number) for number in numbers], tensor.shape)


def number(value: Value) -> float | None:
    """A learning rate, step count or beta as a float: from a number or a one-element tensor."""
    if isinstance(value, TensorRef) and value.numel == 1:
        from liontool.checkpoint import values

        value = values.scalar(value)
    try:
        return float(value) if isinstance(value, (int, float)) else None
    except OverflowError:  # an integer beyond every float
        return None


def notes(schedulers: Sequence[Scheduler], verb: str = "divide") -> tuple[str, ...]:
    """Sentences about what cannot be scaled, because the file does not hold or name it.

    Args:
        schedulers: With those that are nested in them.
        verb: What is to be done to a learning rate elsewhere: "divide", or "change".
    """
    found: list[str] = []
    for scheduler in walk(schedulers):
        for check in (_code_note, _kind_note, _unknown_note):
            note = check(scheduler, verb)
            if note and note not in found:
                found.append(note)
    return tuple(found)


def walk(schedulers: Sequence[Scheduler]) -> list[Scheduler]:
    """Every scheduler and, after it, every scheduler nested in it."""
    found: list[Scheduler] = []
    todo = list(reversed(schedulers))
    while todo:
        scheduler = todo.pop()
        found.append(scheduler)
        todo.extend(reversed(scheduler.children))
    return found


def _code_note(scheduler: Scheduler, verb: str) -> str:
    objects = [
        ", ".join(map(str, item))
        for name in ("lr_lambdas", "_scale_fn_custom")
        for item in _items(scheduler.fields.get(name))
        if _is_mapping(item) and len(item)
    ]
    if objects:
        return (
            f"{_named(scheduler)}: a function object keeps {objects[0]} in the file, left as "
            f"found; {verb} what is an absolute learning rate among them in your script"
        )
    if "lr_lambdas" in scheduler.fields:
        return (
            f"{_named(scheduler)}: its factor is code, not in the file; if it is made of an "
            f"initial and a minimum learning rate, leave both as they are or {verb} both"
        )
    return ""


def _kind_note(scheduler: Scheduler, verb: str) -> str:
    kind = kind_of(scheduler)
    if kind is None or not kind.note:
        return ""
    multiply = "multiply" if verb == "divide" else verb
    return f"{_named(scheduler)}: {kind.note.format(divide=verb, multiply=multiply)}"


def _unknown_note(scheduler: Scheduler, verb: str) -> str:
    if kind_of(scheduler) is not None:
        return ""
    scaled = set(rate_keys(scheduler))
    names = [name for name in scheduler.fields if name not in scaled]
    left = [str(name) for name in names if not _RATE_WORDS.isdisjoint(str(name).split("_"))]
    if left:
        return (
            f"{_named(scheduler)}: its class is not known, and {', '.join(left)} may hold a "
            f"learning rate; left as found, {verb} it in your script"
        )
    if not scaled:
        return (
            f"{_named(scheduler)}: it keeps no learning rate in the file, so the script or a "
            f"configuration sets it: {verb} it there"
        )
    return ""


def _items(value: Value) -> Sequence[Value]:
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return value
    return () if value is None else (value,)


def _is_mapping(value: Value) -> bool:
    return hasattr(value, "keys") and not isinstance(value, (Opaque, TensorRef))


def _named(scheduler: Scheduler) -> str:
    name = describe(scheduler).name
    return f"{name} in {scheduler.label}" if scheduler.label else name


@dataclass(frozen=True)
class Description:
    """A scheduler for people.

    Attributes:
        name: Its class as far as the state tells.
        position: How often it was stepped, where known.
        length: Its own measure of how long it runs, where it has one.
        rates: Its absolute learning rates by name, as plain numbers and lists.
        children: The schedulers inside it.
    """

    name: str
    position: int | None
    length: float | None
    rates: dict[str, Any]
    children: tuple[Description, ...] = ()


def describe(scheduler: Scheduler) -> Description:
    """The class, position and learning rates of a scheduler."""
    kind = kind_of(scheduler)
    position = number(scheduler.fields.get("last_epoch"))
    return Description(
        kind.name if kind else "unknown scheduler",
        int(position) if position is not None and isfinite(position) else None,
        number(scheduler.fields.get(kind.end)) if kind and kind.end else None,
        {name: plain(scheduler.fields[name]) for name in rate_keys(scheduler)},
        tuple(describe(child) for child in scheduler.children),
    )


def cycled_betas(group: ParamGroup, schedulers: Sequence[Scheduler]) -> tuple[float, float] | None:
    """The values between which a scheduler goes on moving beta1 of this group, if one does."""
    if not any(scheduler.fields.get("cycle_momentum") for scheduler in walk(schedulers)):
        return None
    low, high = (number(group.fields.get(name)) for name in ("base_momentum", "max_momentum"))
    return None if low is None or high is None else (low, high)

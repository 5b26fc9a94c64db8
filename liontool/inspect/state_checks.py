"""Whether an optimizer's state fits its parameters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence

from liontool.checkpoint.document import TensorRef, tensors
from liontool.checkpoint.encoding import is_float
from liontool.checkpoint.learning_rates import number
from liontool.checkpoint.model import Optimizer, ParamGroup, Slot
from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import kind_of
from liontool.inspect.listing import documents
from liontool.inspect.opening import Opened
from liontool.states import MOMENT

_NAMED = 3  # labels in one message

# State that has the shape and, in most optimizers, the element type of its parameter.
_SHAPED = (MOMENT, "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "square_avg", "exp_inf")


def weight_dtypes(opened: Opened) -> frozenset[str]:
    """The element types of all floats but optimizers' states and single numbers: the weights."""
    checkpoint = opened.checkpoint
    optimizers = checkpoint.optimizers if checkpoint else ()
    states = {
        id(tensor)
        for optimizer in optimizers
        for slot in optimizer.slots.values()
        for _, tensor in slot.tensors()
    }
    return frozenset(
        tensor.dtype
        for document in documents(opened.source)
        for _, tensor in tensors(document.tree)
        if id(tensor) not in states and tensor.numel > 1 and is_float(tensor.dtype)
    )


def state_findings(optimizer: Optimizer, weights: Collection[str]) -> Iterator[Finding]:
    """What is wrong with the state of one optimizer.

    Args:
        optimizer: As it was saved.
        weights: The element types of the weights beside it.
    """
    where, kind = optimizer.label, kind_of(optimizer)
    slots = _parameters_slots(optimizer)
    yield from _owners(optimizer, slots, where)
    kept = [slot for slot in slots.values() if slot.state]
    if not kept:
        yield from _no_state(optimizer, kind, where)
        return
    yield from _without_state(optimizer, kind, where)
    yield from _missing_fields(kept, where)
    yield from _shapes(kept, where)
    yield from _dtypes(kept, weights, where)
    yield from _steps(optimizer, where)


def _parameters_slots(optimizer: Optimizer) -> dict[int | str, Slot]:
    """State of parameters: where those have numbers, state by a word is the optimizer's own."""
    words = any(isinstance(key, str) for group in optimizer.groups for key in group.params)
    slots = optimizer.slots.items()
    return {key: slot for key, slot in slots if words or not isinstance(key, str)}


def _owners(optimizer: Optimizer, slots: Mapping[int | str, Slot], where: str) -> Iterator[Finding]:
    times = Counter(key for group in optimizer.groups for key in group.params)
    orphans = [slot.label for key, slot in slots.items() if key not in times]
    if orphans:
        text = f"state of {some(orphans)} belongs to no group's params: every loader loses it"
        yield Finding("state-without-parameter", where, text)
    twice = [str(key) for key, count in times.items() if count > 1]
    if twice:
        text = f"{some(twice)} stand more than once in the groups' params: no optimizer takes that"
        yield Finding("parameter-twice", where, text)


def _no_state(optimizer: Optimizer, kind: str, where: str) -> Iterator[Finding]:
    if kind == "LBFGS" or not all(_keeps_none(kind, group) for group in optimizer.groups):
        why = "nothing was trained with it yet" + (", or it keeps none" * (kind == "unknown"))
        yield Finding("no-state", where, f"no parameter has state: {why}")


def _keeps_none(kind: str, group: ParamGroup) -> bool:
    """Whether parameters of a group need none: SGD without momentum; LBFGS's first has it all."""
    return kind == "LBFGS" or (kind == "SGD" and number(group.fields.get("momentum")) == 0)


def _without_state(optimizer: Optimizer, kind: str, where: str) -> Iterator[Finding]:
    groups = (group for group in optimizer.groups if not _keeps_none(kind, group))
    missing = [name for group in groups for name in _stateless(optimizer, group)]
    if missing:
        count = "1 parameter has" if len(missing) == 1 else f"{len(missing):,} parameters have"
        text = f"{count} no state (frozen, or never given a gradient): {some(missing)}"
        yield Finding("parameter-without-state", where, text)


def _stateless(optimizer: Optimizer, group: ParamGroup) -> Iterator[str]:
    names = group.names or group.params
    for key, name in zip(group.params, names, strict=True):
        slot = optimizer.slots.get(key)
        if slot is None or not slot.state:
            yield str(name)


def _missing_fields(kept: Sequence[Slot], where: str) -> Iterator[Finding]:
    """Fields that most parameters of a kind have and some lack.

    Others of a kind have all that one has, or more: Adafactor keeps rows and columns for matrices,
    one variance for vectors, and neither lacks anything.
    """
    labels: dict[frozenset[str], list[str]] = {}
    for slot in kept:
        labels.setdefault(frozenset(slot.state), []).append(slot.label)
    common = Counter({fields: len(own) for fields, own in labels.items()}).most_common(_MOST_KINDS)
    lacking: dict[str, list[str]] = {}
    for fields, own in labels.items():
        alike = {others: count for others, count in common if fields <= others}
        for name in sorted(frozenset().union(*alike) - fields):
            have = sum(count for others, count in alike.items() if name in others)
            if have > sum(alike.values()) / 2:
                lacking.setdefault(name, []).extend(own)
    for name, missing in lacking.items():
        text = f"{some(missing)} lack {name}, which the others have: a step fails there"
        yield Finding("state-field-missing", where, text)


def _shapes(kept: Sequence[Slot], where: str) -> Iterator[Finding]:
    for slot in kept:
        moments = {name: slot.state[name] for name in _SHAPED if name in slot.state}
        tensors = {n: t for n, t in moments.items() if isinstance(t, TensorRef)}
        expected = slot.shape or next((t.shape for t in tensors.values()), None)
        whose = f"{next(iter(tensors), '')} has" if slot.shape is None else "the parameter has"
        for name, tensor in tensors.items():
            if tensor.shape != expected:
                shapes = f"shape {list(tensor.shape)}, {whose} {list(expected or ())}"
                yield Finding("moment-shape", _at(where, slot.label), f"{name} has {shapes}")


def _dtypes(kept: Sequence[Slot], weights: Collection[str], where: str) -> Iterator[Finding]:
    moments = Counter(
        tensor.dtype
        for slot in kept
        for name, tensor in slot.tensors()
        if name in _SHAPED and is_float(tensor.dtype)
    )
    if len(moments) > 1:
        types = ", ".join(f"{count:,} of {dtype}" for dtype, count in moments.most_common())
        text = f"moments are of several types: {types}; {_CAST}"
        yield Finding("moment-dtypes-differ", where, text)
    elif moments and weights and moments.keys().isdisjoint(weights):
        types = f"{', '.join(moments)}, the weights {', '.join(sorted(weights))}"
        yield Finding("moment-dtype", where, f"moments are {types}: {_CAST}")


_CAST = "torch's load_state_dict turns them into the type of the weights"


def _steps(optimizer: Optimizer, where: str) -> Iterator[Finding]:
    """The first parameter of each group speaks for it: steps are read one by one."""
    steps: dict[float, list[str]] = {}
    for index, group in enumerate(optimizer.groups[:_MOST_GROUPS]):
        own = (optimizer.slots[key] for key in group.params if key in optimizer.slots)
        counts = (number(slot.state.get("step")) for slot in own if "step" in slot.state)
        step = next(counts, None)
        if step is not None:
            steps.setdefault(step, []).append(str(index))
    if len(steps) > 1:
        texts = (f"{step:,.0f} in group {some(groups)}" for step, groups in steps.items())
        text = f"groups have made different numbers of steps: {'; '.join(texts)}"
        yield Finding("steps-differ", where, text)


_MOST_GROUPS = 64
_MOST_KINDS = 64


def some(labels: Sequence[str]) -> str:
    """The first few of many labels, and how many there are besides."""
    more = f" and {len(labels) - _NAMED:,} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def _at(where: str, label: str) -> str:
    return f"{where}, {label}" if where else label

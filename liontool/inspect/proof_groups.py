"""What a conversion makes of a group and of a scheduler, computed from the source once more.

In the arithmetic of the rule, so that results are compared to the last bit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from liontool.checkpoint.document import TensorRef, Value, is_list, is_tuple
from liontool.checkpoint.learning_rates import (
    GROUP_KEYS,
    changed,
    kind_of,
    number,
    rate_keys,
)
from liontool.checkpoint.model import Optimizer, ParamGroup, Scheduler, Slot
from liontool.inspect.record import Record
from liontool.measure.adam_moments import bias, slot_step
from liontool.states import ADAM_GROUP_KEYS, LIONS, MOMENT

_LION_SF = "adamw to lion-sf"
_HELD = ("base_lrs", "_last_lr", "max_lrs", "_init_lrs")
_LOW_PRECISION = ("float16", "bfloat16")


def wanted_group(
    group: ParamGroup, before: Optimizer, ratio: float, record: Record
) -> dict[str, Value]:
    """All fields of a Lion's group, by those of the AdamW's."""
    lion, old = LIONS[record.package], group.fields
    kept_maximize = lion.maximize and old.get("maximize")
    gone = ADAM_GROUP_KEYS - ({"maximize"} if kept_maximize else set())
    wanted = {key: value for key, value in old.items() if key not in gone}
    wanted |= {key: _divided(old[key], ratio) for key in GROUP_KEYS if key in old}
    wanted |= {k: v for k, v in lion.group.items() if k not in old or k in ADAM_GROUP_KEYS}
    wanted["betas"] = record.betas
    if lion.split_betas:
        wanted |= {"beta1": record.betas[0], "beta2": record.betas[1]}
    wanted |= _decay(group, before, ratio, record)
    slots = [before.slots[key] for key in group.params if key in before.slots]
    if lion.kahan and any(_is_low(slot) for slot in slots):
        wanted["kahan_sum"] = True
    if lion.horizon and record.momentum == "copy":
        wanted["horizon"] = _horizon(group, slots, record)
    if record.rule == _LION_SF:
        lr = wanted.get("lr")
        held = [key for key in GROUP_KEYS if key in old and key != "lr"]
        wanted |= {key: _like(old[key], number(lr)) for key in held}
    return wanted


def wanted_scheduler(
    old: Scheduler, groups: Sequence[Mapping[str, Value]], ratio: float, record: Record
) -> dict[str, Value]:
    """All fields of a scheduler, less the schedulers in it.

    Args:
        old: The source's.
        groups: What `wanted_group` gives for each group that it drives.
        ratio: What learning rates are divided by.
        record: What else the conversion did.
    """
    wanted = dict(old.fields)
    wanted |= {key: _divided(old.fields[key], ratio) for key in rate_keys(old)}
    if record.rule != _LION_SF:
        return wanted
    rates = [number(group.get("lr")) or 0.0 for group in groups]
    for key in rate_keys(old):
        value = old.fields[key]
        if key in _HELD and is_list(value) and len(value) == len(rates):
            items = [_like(item, rate) for item, rate in zip(value, rates, strict=True)]
            wanted[key] = tuple(items) if is_tuple(value) else items
    kind = kind_of(old)
    constant = dict((kind.constant or ()) if kind else ())
    return wanted | {key: value for key, value in constant.items() if key in wanted}


def _divided(value: Value, ratio: float) -> Value:
    return value if ratio == 1 else changed(value, lambda item: item / ratio)


def _decay(group: ParamGroup, before: Optimizer, ratio: float, record: Record) -> dict[str, Value]:
    """The weight decay, and what makes it independent of the learning rate."""
    lion, old = LIONS[record.package], group.fields
    factor, found = ratio, {}
    if record.decay == "decoupled":
        all_groups = max((_highest(one) for one in before.groups), default=0.0)
        factor = all_groups if lion.constructor else _highest(group) or all_groups
        references = lion.decoupled.items()
        found = {key: factor / ratio if value is None else value for key, value in references}
    if "weight_decay" in old and record.decay != "kept":
        decay = old["weight_decay"]
        found["weight_decay"] = decay if factor == 1 else changed(decay, lambda x: x * factor)
    return found


def _highest(group: ParamGroup) -> float:
    return max(number(group.fields.get(key)) or 0.0 for key in ("lr", "initial_lr", "max_lr"))


def _is_low(slot: Slot) -> bool:
    moment = slot.state.get(MOMENT)
    return isinstance(moment, TensorRef) and moment.dtype in _LOW_PRECISION


def _horizon(group: ParamGroup, slots: Sequence[Slot], record: Record) -> float | None:
    """How many gradients a copied momentum counts for: Adam's average, or at least Lion's mix."""
    betas = group.fields.get("betas")
    found = number(betas[0]) if is_list(betas) and len(betas) else None
    beta1 = 0.9 if found is None else found
    steps = [step for slot in slots if (step := slot_step(slot)) is not None]
    if beta1 >= 1:
        return None
    own = bias(beta1, max(steps, default=None)) / (1 - beta1)
    return max(own, 1 / (1 - record.betas[0]))


def _like(item: Value, rate: float | None) -> Value:
    """`rate` in the form of `item`: a number, or a tensor with that number everywhere."""
    if not isinstance(item, TensorRef) or rate is None:
        return rate
    from liontool.checkpoint import values

    return values.from_scalars(item.dtype, [rate] * item.numel, item.shape)

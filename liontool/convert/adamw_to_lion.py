"""AdamW to Lion: what is kept, scaled and dropped.

State: `exp_avg` becomes Lion's momentum, second moments go, `step` goes unless the package wants
it. Groups: learning rates are divided by the ratio, weight decay is multiplied by it, `betas` are
Lion's, Adam's own keys go, keys that no Adam owns stay. Schedulers: every absolute learning rate is
divided.

Lion: Chen et al., https://arxiv.org/abs/2302.06675. The momentum seed: docs of this package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from liontool.checkpoint.document import TensorRef, Value
from liontool.checkpoint.learning_rates import (
    multiplied,
    number,
    scale_group,
    scale_scheduler,
)
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from liontool.convert import seeding
from liontool.convert.change import Change
from liontool.convert.decoupled_decay import check_decoupled, decoupled
from liontool.convert.notices import dropped, hints, shape_mismatches, warnings
from liontool.convert.settings import Settings
from liontool.errors import RefusedError, UnknownOptimizerError
from liontool.measure.adam_moments import bias, second_moment, slot_step
from liontool.measure.seed_scale import scale_factor
from liontool.states import ADAM_GROUP_KEYS, MOMENT, Recognition, recognise

_LOW_PRECISION = ("float16", "bfloat16")


def adamw_to_lion(optimizer: Optimizer, settings: Settings) -> Change:
    """Turn the state of AdamW or Adam into that of Lion.

    Raises:
        UnknownOptimizerError: It is neither, and `settings.allow` lacks "unknown-optimizer".
        RefusedError: A moment has another shape than its parameter, or the package does not read
            `maximize`, or there is no learning rate for a decoupled decay to be relative to.
    """
    recognition = check_optimizer(optimizer, settings)
    _check_shapes(optimizer, settings)
    _check_maximize(optimizer, settings)
    check_decoupled(optimizer, settings)
    groups = tuple(_group(group, optimizer, settings) for group in optimizer.groups)
    slots = _slots(optimizer, settings)
    after = replace(
        optimizer,
        groups=groups,
        slots=slots,
        schedulers=tuple(scale_scheduler(item, settings.ratio) for item in optimizer.schedulers),
    )
    return Change(
        optimizer=after,
        recognition=recognition,
        dropped=dropped(optimizer, after),
        warnings=tuple(warnings(optimizer, recognition)),
        notes=tuple(hints(optimizer, settings)),
        moments=tuple(
            slot.state[MOMENT]
            for slot in slots.values()
            if isinstance(slot.state.get(MOMENT), TensorRef)
        ),
    )


def recognised(optimizer: Optimizer) -> Recognition:
    """Whose state an optimizer has."""
    return recognise(
        (group.fields for group in optimizer.groups),
        (slot.state.keys() for slot in optimizer.slots.values()),
    )


def check_optimizer(optimizer: Optimizer, settings: Settings | None = None) -> Recognition:
    """Recognise AdamW or Adam.

    Raises:
        UnknownOptimizerError: It is something else; the message names the keys that differ.
    """
    found = recognised(optimizer)
    if found.is_adam:
        return found
    where = f"{optimizer.label}: " if optimizer.label else ""
    if found.kind.startswith("Lion"):
        raise UnknownOptimizerError(
            f"{where}this is the state of {found.kind} already, there is nothing to convert; load "
            "it as it is, or give the AdamW checkpoint that it was made from"
        )
    looks = "no known optimizer" if found.kind == "unknown" else found.kind
    message = f"{where}this looks like {looks}, and only AdamW can be converted"
    if found.differing:
        message += f": {'; '.join(found.differing)}"
    slots = [slot for slot in optimizer.slots.values() if len(slot.state)]
    if not slots or any(MOMENT not in slot.state for slot in slots):
        raise UnknownOptimizerError(message)
    if settings is None or "unknown-optimizer" not in settings.allow:
        raise UnknownOptimizerError(
            f"{message}; to take its '{MOMENT}' over all the same: --allow unknown-optimizer",
            id="unknown-optimizer",
        )
    return found


def _check_shapes(optimizer: Optimizer, settings: Settings) -> None:
    mismatch = next(shape_mismatches(optimizer), None)
    if mismatch is not None and "shape-mismatch" not in settings.allow:
        raise RefusedError(mismatch, id="shape-mismatch")


def _check_maximize(optimizer: Optimizer, settings: Settings) -> None:
    if settings.lion.maximize or "maximize" in settings.allow:
        return
    for i, group in enumerate(optimizer.groups):
        if group.fields.get("maximize"):
            raise RefusedError(
                f"group {i} has maximize=True, which the Lion of {settings.package} does not read "
                "from a file: it would walk the other way; liontool's and timm's read it",
                id="maximize",
            )


# --- groups -------------------------------------------------------------------------------------


def _group(group: ParamGroup, optimizer: Optimizer, settings: Settings) -> ParamGroup:
    fields, lion = group.fields, settings.lion
    changes: dict[str, Value] = {"betas": settings.betas}
    if lion.split_betas:
        changes.update(beta1=settings.betas[0], beta2=settings.betas[1])
    changes.update(
        (key, value)
        for key, value in lion.group.items()
        if key not in fields or key in ADAM_GROUP_KEYS  # a scheduler's `max_lr` stays
    )
    if settings.decay == "decoupled":
        changes.update(decoupled(fields, optimizer, settings))
    elif settings.decay == "scaled" and "weight_decay" in fields:
        changes["weight_decay"] = multiplied(fields["weight_decay"], settings.ratio)
    if lion.kahan and _any_low_precision(group, optimizer):
        changes["kahan_sum"] = True
    if lion.horizon and settings.momentum == "copy":
        changes["horizon"] = seeding.horizon(
            _adam_beta(fields, 0), _group_step(group, optimizer), settings.betas[0]
        )
    gone = set(ADAM_GROUP_KEYS) - changes.keys()
    if lion.maximize and fields.get("maximize"):
        gone.discard("maximize")
    kept = scale_group(fields, settings.ratio).without(*gone)
    return replace(group, fields=kept.replaced(changes))


def _adam_beta(fields: Fields, index: int) -> float:
    betas = fields.get("betas")
    found = number(betas[index]) if isinstance(betas, Sequence) else None
    return (0.9, 0.999)[index] if found is None else found


def _group_step(group: ParamGroup, optimizer: Optimizer) -> float | None:
    """Steps of the group: of its oldest parameter, since nearly all have as many."""
    steps = [slot_step(slot) for slot in _slots_of(group, optimizer)]
    return max((step for step in steps if step is not None), default=None)


def _slots_of(group: ParamGroup, optimizer: Optimizer) -> list[Slot]:
    return [optimizer.slots[key] for key in group.params if key in optimizer.slots]


def _any_low_precision(group: ParamGroup, optimizer: Optimizer) -> bool:
    moments = (slot.state.get(MOMENT) for slot in _slots_of(group, optimizer))
    return any(isinstance(item, TensorRef) and item.dtype in _LOW_PRECISION for item in moments)


# --- state --------------------------------------------------------------------------------------


def _slots(optimizer: Optimizer, settings: Settings) -> Mapping[int | str, Slot]:
    groups = {key: group.fields for group in optimizer.groups for key in group.params}
    return {
        key: replace(slot, state=_state(slot, groups.get(key, Fields({})), settings))
        for key, slot in optimizer.slots.items()
    }


def _state(slot: Slot, group: Fields, settings: Settings) -> Fields:
    state = slot.state
    keep = {MOMENT, "step"} if settings.lion.wants_step else {MOMENT}
    kept = state.without(*(key for key in state if key not in keep))
    moment = state.get(MOMENT)
    if not isinstance(moment, TensorRef):
        return kept
    changes: dict[str, Value] = {MOMENT: _momentum(moment, slot, group, settings)}
    if settings.lion.kahan:
        low = moment.dtype in _LOW_PRECISION
        changes["kahan_comp"] = seeding.zeros(moment, None if low else (1,))
    return kept.replaced(changes)


def _momentum(moment: TensorRef, slot: Slot, group: Fields, settings: Settings) -> TensorRef:
    if settings.momentum == "zeros":
        return seeding.zeros(moment)
    step, beta1 = slot_step(slot), _adam_beta(group, 0)
    if settings.zero_stale and isinstance(second := second_moment(slot), TensorRef):
        biases = bias(beta1, step), bias(_adam_beta(group, 1), step)
        moment = seeding.without_stale(moment, (second, *biases, number(group.get("eps")) or 0.0))
    if settings.momentum == "scaled":
        moment = seeding.scaled(moment, scale_factor(beta1, step, settings.betas[1]))
    return moment

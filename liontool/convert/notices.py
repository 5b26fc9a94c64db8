"""What a conversion should tell the user: what is gone, what may go wrong, what is left to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from liontool.checkpoint.document import TensorRef
from liontool.checkpoint.learning_rates import cycled_betas, notes, number
from liontool.checkpoint.model import Optimizer
from liontool.convert.decoupled_decay import highest_lr
from liontool.convert.report import Notice
from liontool.convert.settings import Settings
from liontool.measure.adam_moments import slot_step
from liontool.states import MOMENT, Recognition

FEW_STEPS = 20
_NAMED = 3  # labels in one message
_SHAPED = (MOMENT, "exp_avg_sq", "max_exp_avg_sq")


def some(labels: Sequence[str]) -> str:
    """The first few of many labels, and how many there are besides."""
    more = f" and {len(labels) - _NAMED} more" if len(labels) > _NAMED else ""
    return ", ".join(labels[:_NAMED]) + more


def dropped(before: Optimizer, after: Optimizer) -> tuple[str, ...]:
    """State and group keys that are gone, each once, state first."""
    pairs = [(slot.state, after.slots[key].state) for key, slot in before.slots.items()] + [
        (old.fields, new.fields) for old, new in zip(before.groups, after.groups, strict=True)
    ]
    return tuple(dict.fromkeys(name for old, new in pairs for name in old if name not in new))


def warnings(optimizer: Optimizer, found: Recognition) -> Iterable[Notice]:
    """What may go wrong with the state of `optimizer`, for the user to weigh."""
    decays = any(number(group.fields.get("weight_decay")) for group in optimizer.groups)
    if found.assumed and decays:
        yield Notice(
            "assumed-adamw",
            "AdamW is assumed: files written before torch 2.7 do not tell it from Adam, whose L2 "
            "decay would be in its moments",
        )
    if found.kind == "Adam" and decays:
        yield Notice(
            "l2-decay",
            "this is Adam with L2 weight decay: its moments contain weight_decay * weight, and "
            "until the momentum has forgotten that, Lion's own decay comes on top",
        )
    if not found.is_adam:
        yield Notice(
            "unknown-optimizer",
            f"this looks like {found.kind}, not AdamW; its '{MOMENT}' is taken as a first moment",
        )
    yield from _state_warnings(optimizer)


def _state_warnings(optimizer: Optimizer) -> Iterable[Notice]:
    slots = [slot for slot in optimizer.slots.values() if MOMENT in slot.state]
    if not slots:
        yield Notice("no-state", "the optimizer has no state yet: Lion starts from a zero momentum")
        return
    steps = [step for slot in slots if (step := slot_step(slot)) is not None]
    if steps and max(steps) < FEW_STEPS:
        yield Notice(
            "few-steps",
            f"only {max(steps):.0f} steps: Adam's moments are not reliable before step {FEW_STEPS}",
        )
    missing = list(_missing(optimizer))
    if missing:
        yield Notice(
            "missing-state",
            f"{len(missing)} parameters have no state (frozen, or never given a gradient): "
            f"{some(missing)}; they start from a zero momentum",
        )


def _missing(optimizer: Optimizer) -> Iterable[str]:
    for group in optimizer.groups:
        names = group.names if len(group.names) == len(group.params) else group.params
        for key, name in zip(group.params, names, strict=True):
            if key not in optimizer.slots or MOMENT not in optimizer.slots[key].state:
                yield str(name)


def shape_mismatches(optimizer: Optimizer) -> Iterator[str]:
    """Every moment that has not the shape of its parameter, as a sentence."""
    for slot in optimizer.slots.values():
        moment = slot.state.get(MOMENT)
        expected = slot.shape or (moment.shape if isinstance(moment, TensorRef) else None)
        whose = MOMENT if slot.shape is None else "the parameter"
        for key in _SHAPED:
            tensor = slot.state.get(key)
            if isinstance(tensor, TensorRef) and expected not in (None, tensor.shape):
                where = f"{optimizer.label}: {slot.label}" if optimizer.label else slot.label
                yield (
                    f"{where}: {key} has shape {list(tensor.shape)}, "
                    f"{whose} has {list(expected or ())}"
                )


def hints(optimizer: Optimizer, settings: Settings) -> Iterable[Notice]:
    """What the user should know, or must do outside the file."""
    if settings.ratio < 1:
        yield Notice(
            "small-ratio",
            f"a ratio of {settings.ratio:g} makes every learning rate {1 / settings.ratio:.4g} "
            "times larger, and Lion wants smaller ones than AdamW: 3 to 10 are usual",
        )
    for text in shape_mismatches(optimizer):
        yield Notice("shape-mismatch", f"{text}; taken all the same")
    if "nonfinite" in settings.allow:
        yield Notice("nonfinite", "first moments were not searched for NaN and infinity")
    yield from _cycled(optimizer, settings)
    for text in notes(optimizer.schedulers):
        yield Notice("scheduler", text)
    if settings.decay == "decoupled":
        yield Notice("decoupled-decay", _decoupled_note(optimizer, settings))
    maximizes = any(group.fields.get("maximize") for group in optimizer.groups)
    if maximizes and not settings.lion.maximize:
        yield Notice("maximize", "maximize=True is dropped: turn the sign of the loss")


def _cycled(optimizer: Optimizer, settings: Settings) -> Iterable[Notice]:
    cycles: dict[tuple[float, float], list[str]] = {}
    for i, group in enumerate(optimizer.groups):
        cycle = cycled_betas(group, optimizer.schedulers)
        if cycle:
            cycles.setdefault(cycle, []).append(str(i))
    for (low, high), groups in cycles.items():
        text = _cycled_text(f"between {low:g} and {high:g}", settings)
        yield Notice("cycled-beta1", f"group {', '.join(groups)}: {text}")


def _cycled_text(cycle: str, settings: Settings) -> str:
    if settings.lion.split_betas:  # torch's schedulers look for `betas` and set only that
        return (
            f"beta1, which cycled {cycle}, stays at {settings.betas[0]:g}: the Lion of "
            f"{settings.package} has no betas to cycle; construct the scheduler with "
            "cycle_momentum=False, or it refuses that Lion"
        )
    if settings.to == "lion-sf":
        return (
            f"beta1 stays at {settings.betas[0]:g} without the scheduler; a scheduler that is kept "
            f"goes on cycling it {cycle}"
        )
    return (
        f"beta1 goes on cycling {cycle}: the scheduler sets it at every step, whatever is written"
    )


def _decoupled_note(optimizer: Optimizer, settings: Settings) -> str:
    if settings.lion.decoupled:
        return "the decay is weight_decay * lr / (highest lr); the groups tell the optimizer"
    return (
        "the decay is to be weight_decay * lr / (highest lr), which the file cannot say: construct "
        f"the optimizer with lr={highest_lr(optimizer) / settings.ratio:.6g}, the highest of all "
        f"groups, and {settings.lion.constructor}"
    )

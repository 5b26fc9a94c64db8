"""Whether state and groups have all that the optimizer needs whose groups they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from liontool.checkpoint.model import Optimizer, ParamGroup, Slot
from liontool.inspect.findings import Finding
from liontool.inspect.group_checks import group_label
from liontool.states import ADAMW, LAYOUTS, MOMENT, Layout, has_groups_of

# Those of torch whose groups are like no other's.
_TOLD_BY_GROUPS = ("AdamW", "NAdam", "RMSprop", "Adagrad", "Adadelta")


def family_findings(optimizer: Optimizer) -> Iterator[Finding]:
    """What an optimizer of torch would miss at its next step."""
    yield from _hyperparameters(optimizer)
    kept = [slot for slot in optimizer.slots.values() if slot.state]
    layout = _layout(optimizer)
    if layout is not None and kept and not _is_of_others(layout, kept):
        yield from _fields(layout, kept, optimizer.label)
    for group in optimizer.groups:
        if group.fields.get("amsgrad") is True:
            yield from _amsgrad(optimizer, group)


def _layout(optimizer: Optimizer) -> Layout | None:
    """What the groups alone tell, whatever is left of the state."""
    groups = [dict(group.fields) for group in optimizer.groups]
    fitting = (layout for layout in LAYOUTS if has_groups_of(layout, groups))
    layout = next(fitting, None)
    return layout if layout is not None and layout.kind in _TOLD_BY_GROUPS else None


def _is_of_others(layout: Layout, kept: Sequence[Slot]) -> bool:
    """Whether all state has what this optimizer keeps none of: bitsandbytes' groups look alike."""
    known = layout.state | layout.state_extra
    return all(slot.state.keys() - known for slot in kept)


def _fields(layout: Layout, kept: Sequence[Slot], where: str) -> Iterator[Finding]:
    """Fields that no state has, or half of them and fewer: the odd ones out are found elsewhere."""
    if all(slot.state.keys() <= {MOMENT, "step"} for slot in kept):
        text = f"the groups are {layout.kind}'s, but of its state only {MOMENT} is there: a Lion"
        yield Finding("state-of-lion", where, f"{text} goes on from it, {layout.kind} fails")
        return
    for name in sorted(layout.state):
        lacking = sum(name not in slot.state for slot in kept)
        if 2 * lacking >= len(kept):
            who = "all parameters" if lacking == len(kept) else f"{lacking:,} parameters"
            text = f"{who} lack {name}, which {layout.kind} needs: a step fails there"
            yield Finding("state-field-missing", where, text)


def _amsgrad(optimizer: Optimizer, group: ParamGroup) -> Iterator[Finding]:
    slots = [optimizer.slots[key] for key in group.params if key in optimizer.slots]
    kept = [slot for slot in slots if slot.state]
    lacking = sum("max_exp_avg_sq" not in slot.state for slot in kept)
    if 2 * lacking >= max(len(kept), 1):
        text = f"amsgrad is on, and {lacking:,} parameters lack max_exp_avg_sq: a step fails there"
        yield Finding("state-field-missing", optimizer.label, text)


def _hyperparameters(optimizer: Optimizer) -> Iterator[Finding]:
    """`amsgrad` is a mark of Adam and AdamW, whose groups have all of these."""
    for index, group in enumerate(optimizer.groups):
        missing = sorted(ADAMW.group - group.fields.keys())
        if "amsgrad" in group.fields and "caution" not in group.fields and missing:
            text = f"lacks {', '.join(missing)}, without which a step fails"
            yield Finding("group-field-missing", group_label(optimizer, index), text)

"""Fields with their places, and the edits between two checkpoints."""

from __future__ import annotations

from dataclasses import replace

import pytest

from liontool.checkpoint.document import Delete, Insert, Place, Rename, Replace
from liontool.checkpoint.model import (
    Checkpoint,
    Fields,
    Optimizer,
    ParamGroup,
    Scheduler,
    Slot,
    plan,
)

ROOT = Place("optimizer.pt", ("optimizer",))


def _checkpoint():
    group = ParamGroup(
        Fields({"lr": 0.1, "eps": 1e-8, "tag": "a"}, ROOT / "param_groups" / 0), (0, 1)
    )
    state = Fields({"step": 5, "exp_avg": object()}, ROOT / "state" / 0)
    child = Scheduler(Fields({"gamma": 0.5}, Place("s.pt", ("_schedulers", 0))))
    scheduler = Scheduler(Fields({"base_lrs": [0.1]}, Place("s.pt")), (child,))
    loose = Scheduler(Fields({"eta_min": 0.1}, Place("t.pt")))
    return Checkpoint(
        "plain", (Optimizer("optimizer", (group,), {0: Slot(0, state)}, (scheduler,)),), (loose,)
    )


def _with_group(checkpoint, fields):
    (optimizer,) = checkpoint.optimizers
    group = replace(optimizer.groups[0], fields=fields)
    return replace(checkpoint, optimizers=(replace(optimizer, groups=(group,)),))


def test_fields_are_a_mapping_that_does_not_change():
    """`replaced` and `without` give new fields and leave the old ones."""
    fields = Fields({"a": 1, "b": 2}, ROOT)
    assert dict(fields.replaced({"b": 3, "c": 4})) == {"a": 1, "b": 3, "c": 4}
    assert dict(fields.without("a", "x")) == {"b": 2}
    assert dict(fields) == {"a": 1, "b": 2}
    assert repr(fields) == "Fields({'a': 1, 'b': 2})"


def test_places_of_fields():
    """A field lies below its mapping, unless it has a place of its own; changes keep both."""
    fields = Fields({"a": 1, "b": 2}, ROOT, {"b": Place("config.json", ("x",))})
    for later in (fields, fields.replaced({"a": 2}), fields.without("a")):
        assert later.place_of("a") == ROOT / "a"
        assert later.place_of("b") == Place("config.json", ("x",))
    assert str(ROOT / "param_groups" / 0) == "optimizer.param_groups.0"


def test_fields_without_a_place():
    """Fields that are in no file have no places."""
    with pytest.raises(LookupError, match="'a' has no place in a file"):
        Fields({"a": 1}).place_of("a")


def test_plan_of_nothing():
    """The same checkpoint needs no edits."""
    checkpoint = _checkpoint()
    assert plan(checkpoint, checkpoint) == []
    (group,) = checkpoint.optimizers[0].groups
    equal = _with_group(checkpoint, group.fields.replaced({}))
    assert plan(checkpoint, equal) == []


def test_plan_of_a_group():
    """What is gone is deleted, what is other replaced, what is new inserted; the rest stays."""
    checkpoint = _checkpoint()
    (group,) = checkpoint.optimizers[0].groups
    fields = group.fields.without("eps").replaced({"lr": 0.2, "horizon": 10.0})
    place = group.fields.place
    assert plan(checkpoint, _with_group(checkpoint, fields)) == [
        Replace(place / "lr", 0.2),
        Delete(place / "eps"),
        Insert(place / "horizon", 10.0),
    ]


def test_plan_of_states_and_schedulers():
    """States, schedulers, those nested in them and those of nobody are compared as well."""
    checkpoint = _checkpoint()
    (optimizer,) = checkpoint.optimizers
    slot, (scheduler,) = optimizer.slots[0], optimizer.schedulers
    (child,), (loose,) = scheduler.children, checkpoint.loose_schedulers
    changed = replace(
        optimizer,
        slots={0: replace(slot, state=slot.state.without("step"))},
        schedulers=(
            replace(
                scheduler,
                fields=scheduler.fields.replaced({"base_lrs": [0.2]}),
                children=(replace(child, fields=child.fields.replaced({"gamma": 1.0})),),
            ),
        ),
    )
    after = replace(
        checkpoint,
        optimizers=(changed,),
        loose_schedulers=(replace(loose, fields=loose.fields.replaced({"eta_min": 0.2})),),
    )
    assert plan(checkpoint, after) == [
        Delete(slot.state.place / "step"),
        Replace(Place("s.pt", ("base_lrs",)), [0.2]),
        Replace(Place("s.pt", ("_schedulers", 0, "gamma")), 1.0),
        Replace(Place("t.pt", ("eta_min",)), 0.2),
    ]


def test_plan_of_shared_state():
    """Fields that two optimizers share are changed once, as the first has them."""
    (one,) = _checkpoint().optimizers
    before = Checkpoint("plain", (one, replace(one, label="again", schedulers=())))
    slot, changed = one.slots[0], []
    for optimizer, value in zip(before.optimizers, ("first", "second"), strict=True):
        state = slot.state.replaced({"exp_avg": value})
        changed.append(replace(optimizer, slots={0: replace(slot, state=state)}))
    assert plan(before, replace(before, optimizers=tuple(changed))) == [
        Replace(one.slots[0].state.place / "exp_avg", "first")
    ]


def _with_two_slots():
    checkpoint = _checkpoint()
    (optimizer,) = checkpoint.optimizers
    state = Fields({"exp_avg": object()}, ROOT / "state" / "b")
    slots = {**optimizer.slots, "b": Slot("b", state, name="b")}
    return replace(checkpoint, optimizers=(replace(optimizer, slots=slots),))


def test_plan_of_slots_that_go_and_get_other_keys():
    """They are told by where they lie; the fields in them are compared all the same."""
    before = _with_two_slots()
    (optimizer,) = before.optimizers
    slot = optimizer.slots["b"]
    state = slot.state.replaced({"exp_avg": "new"})
    changed = replace(optimizer, slots={"c": replace(slot, key="c", state=state)})
    assert plan(before, replace(before, optimizers=(changed,))) == [
        Delete(ROOT / "state" / 0),
        Rename(ROOT / "state" / "b", "c"),
        Replace(ROOT / "state" / "b" / "exp_avg", "new"),
    ]


def test_plan_of_parameters():
    """A group that lists others gets a new list."""
    before = _checkpoint()
    (optimizer,) = before.optimizers
    group = replace(optimizer.groups[0], params=(1,))
    after = replace(before, optimizers=(replace(optimizer, groups=(group,)),))
    assert plan(before, after) == [Replace(ROOT / "param_groups" / 0 / "params", [1])]


def test_slots_without_a_place_cannot_go():
    """Lenses whose state lies in no mapping have a plan of their own."""
    group = ParamGroup(Fields({"lr": 0.1}), (0,))
    before = Checkpoint("own", (Optimizer("", (group,), {0: Slot(0, Fields({}))}),))
    after = replace(before, optimizers=(replace(before.optimizers[0], slots={}),))
    with pytest.raises(LookupError, match="the state of '0' has no place in a file"):
        plan(before, after)


def test_labels_of_slots():
    """A slot is called by its name, or else by its key."""
    assert Slot(3, Fields({})).label == "3"
    assert Slot(3, Fields({}), name="wte").label == "wte"

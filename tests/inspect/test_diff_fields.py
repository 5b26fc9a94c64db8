"""`compare_fields`: hyperparameters, steps and schedulers of two models in memory."""

from __future__ import annotations

from typing import Any

import pytest

from liontool.checkpoint.document import Opaque
from liontool.checkpoint.model import Checkpoint, Fields, Optimizer, ParamGroup, Scheduler, Slot
from liontool.checkpoint.values import from_scalars
from liontool.inspect.diff_fields import FieldDifference, FieldsDiff, compare_fields

GROUP = {"lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.1, "amsgrad": False}


def group(params: list[Any], names: tuple[str, ...] = (), **fields: Any) -> ParamGroup:
    return ParamGroup(Fields({**GROUP, **fields}), tuple(params), names)


def checkpoint(*groups: ParamGroup, schedulers: Any = (), state: Any = None, **run: Any) -> Any:
    slots = {key: Slot(key, Fields(fields)) for key, fields in (state or {}).items()}
    return Checkpoint("plain", (Optimizer("", groups, slots, tuple(schedulers)),), **run)


def scheduler(*children: Scheduler, **fields: Any) -> Scheduler:
    return Scheduler(Fields({"last_epoch": 5, **fields}), children)


def told(diff: FieldsDiff) -> list[tuple[str, str, str, Any, Any]]:
    return [(one.where, one.field, one.change, one.a, one.b) for one in diff.differences]


def test_nothing_differs() -> None:
    """Equal models have no differences; lists and tuples, 1 and 1.0, NaN and NaN are equal."""
    nan = float("nan")
    a = checkpoint(group([0], extra=nan, size=1), schedulers=[scheduler(T_max=10)], step=3)
    b = checkpoint(
        group([0], extra=nan, size=1.0, betas=[0.9, 0.999]), schedulers=[scheduler(T_max=10)]
    )
    assert told(compare_fields(a, b)) == []
    assert compare_fields(a, b).groups == 1


def test_hyperparameters_by_group() -> None:
    """Each value that differs is told with its group, and what only one side has."""
    a = checkpoint(group([0]), group([1], weight_decay=0.0), step=500, epoch=1.0)
    b = checkpoint(
        group([0], lr=1e-4), group([1], weight_decay=0.0, lr_scale=10.0), step=600, epoch=1.0
    )
    assert told(compare_fields(a, b)) == [
        ("", "step", "changed", 500, 600),
        ("groups.0", "lr", "changed", 3e-4, 1e-4),
        ("groups.1", "lr_scale", "added", None, 10.0),
    ]


def test_class() -> None:
    """The class of the optimizer is told by all its keys."""
    lion = ParamGroup(Fields({"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.3}), (0,))
    own = dict.fromkeys(("foreach", "fused", "maximize", "capturable", "differentiable"))
    a = checkpoint(group([0], decoupled_weight_decay=True, **own))
    b = checkpoint(lion, state={0: {"exp_avg": from_scalars("float32", [1.0])}})
    found = compare_fields(a, b).differences
    assert (found[0].field, found[0].a, found[0].b) == ("class", "AdamW", "Lion")


def test_groups_are_matched_by_names() -> None:
    """Where names are known the order of groups is no difference, and it is told."""
    a = checkpoint(group([0], ("w",)), group([1, 2], ("b", "c"), lr=1.0))
    b = checkpoint(group([0, 1], ("b", "c"), lr=2.0), group([2], ("w",)))
    diff = compare_fields(a, b)
    assert told(diff) == [("groups.1", "lr", "changed", 1.0, 2.0)]
    assert diff.notes == (
        "group 0 of A is group 1 of B, by the names of its parameters",
        "group 1 of A is group 0 of B, by the names of its parameters",
    )


def test_groups_that_only_one_side_has() -> None:
    """A group without a counterpart is told by its size; so is another number of parameters."""
    a, b = checkpoint(group([0, 1])), checkpoint(group([0]), group([1, 2]))
    assert told(compare_fields(a, b)) == [
        ("groups.0", "parameters", "changed", 2, 1),
        ("groups.1", "parameters", "added", None, 2),
    ]
    assert told(compare_fields(b, a))[1][2] == "removed"


def test_nested_schedulers() -> None:
    """Every field of every scheduler counts, nested ones too, and a part that one side lacks."""
    a = scheduler(scheduler(T_max=10, eta_min=1e-5), scheduler(step_size=3, gamma=0.1),
                  _milestones=[5])  # fmt: skip
    b = scheduler(scheduler(T_max=20, eta_min=1e-5), _milestones=[5])
    diff = compare_fields(
        checkpoint(group([0]), schedulers=[a]), checkpoint(group([0]), schedulers=[b])
    )
    assert told(diff) == [
        ("scheduler.0", "T_max", "changed", 10, 20),
        ("scheduler.1", "class", "removed", "StepLR", None),
    ]
    assert diff.of("scheduler") == diff.differences


def test_scheduler_of_another_class() -> None:
    """A scheduler of another class is told as such, with the fields that differ."""
    a = checkpoint(group([0]), schedulers=[scheduler(T_max=10, eta_min=0.0)])
    b = checkpoint(group([0]), schedulers=[scheduler(step_size=3, gamma=0.1)])
    found = compare_fields(a, b).differences
    assert [(one.field, one.change) for one in found] == [
        ("class", "changed"), ("T_max", "removed"), ("eta_min", "removed"),
        ("step_size", "added"), ("gamma", "added"),
    ]  # fmt: skip


def test_schedulers_pair_though_one_is_loose() -> None:
    """A scheduler that could not be paired with an optimizer is still compared."""
    a = checkpoint(group([0]), schedulers=[scheduler(T_max=10, eta_min=0.0)])
    b = checkpoint(group([0]), loose_schedulers=(scheduler(T_max=11, eta_min=0.0),))
    assert told(compare_fields(a, b)) == [("scheduler", "T_max", "changed", 10, 11)]


def test_numbers_in_tensors() -> None:
    """A learning rate in a float32 tensor is the number that rounds to it, and no other."""
    tensor = from_scalars("float32", [3e-4])
    a = checkpoint(group([0], lr=tensor))
    assert told(compare_fields(a, checkpoint(group([0])))) == []
    assert told(compare_fields(checkpoint(group([0])), a)) == []
    (found,) = compare_fields(a, checkpoint(group([0], lr=3.001e-4))).differences
    assert found.b == 3.001e-4
    small = [from_scalars("float32", numbers, (2,)) for numbers in ([1, 2], [1, 3])]
    (found,) = compare_fields(
        *(checkpoint(group([0], limits=tensor)) for tensor in small)
    ).differences
    assert (found.a, found.b) == ([1, 2], [1, 3])


def test_plain_numbers_in_the_state() -> None:
    """A step that is no tensor, as old torch keeps it, is compared with a tensor too."""
    a = checkpoint(group([0, 1]), state={0: {"step": 5}, 1: {"step": 5}})
    b = checkpoint(group([0, 1]), state={0: {"step": from_scalars("float32", [5])}, 1: {"step": 6}})
    assert told(compare_fields(a, b)) == [("state.1", "step", "changed", 5, 6)]


def test_objects() -> None:
    """Of an object the name, the arguments and the state are compared."""
    a, b = (checkpoint(group([0], rule=Opaque("x.Rule", (), {"power": power}))) for power in (1, 2))
    (found,) = compare_fields(a, b).differences
    assert found.a == {"<x.Rule>": [[], {"power": 1}]}
    assert compare_fields(a, a).differences == ()


def test_a_side_without_optimizer() -> None:
    """A file of weights alone lacks the optimizer; two of them differ in nothing."""
    found = compare_fields(checkpoint(group([0])), None).differences
    assert [(one.field, one.change, one.b) for one in found] == [("optimizer", "removed", None)]
    assert compare_fields(None, None).differences == ()


def test_several_optimizers() -> None:
    """Of several optimizers each says whose value it is; one that is missing is told."""
    first, second = (Optimizer("", (group([0], lr=lr),), {}) for lr in (1.0, 2.0))
    other = Optimizer("", (group([0], lr=3.0),), {})
    a, b = Checkpoint("plain", (first, second)), Checkpoint("plain", (first, other))
    assert told(compare_fields(a, b)) == [("optimizers.1.groups.0", "lr", "changed", 2.0, 3.0)]
    (found,) = compare_fields(a, Checkpoint("plain", (first,))).differences
    assert (found.field, found.change) == ("optimizers.1", "removed")


@pytest.mark.parametrize(
    ("a", "b", "factor"),
    [
        (3e-4, 1e-4, 1 / 3),
        ([0.1, 0.0, 0.2], [0.3, 0.0, 0.6], 3.0),
        ([0.1, 0.2], [0.3, 0.5], None),
        (0.0, 1.0, None),
        (True, 2, None),
        ("x", "y", None),
        ([1.0], 2.0, None),
        (10**400, 0.5, None),
        ([], [], None),
    ],
)
def test_factor(a: Any, b: Any, factor: float | None) -> None:
    """A factor is told where all numbers have the same one."""
    found = FieldDifference("group", "groups.0", "lr", "changed", a, b).factor
    assert found == (None if factor is None else pytest.approx(factor))

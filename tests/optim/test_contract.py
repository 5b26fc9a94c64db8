"""What torch and its users expect of any optimizer, for both Lions: steps, groups, state.

The rest of the contract has files of its own: options, copies, amp, layouts, gpu (all
`test_contract_*`), what torch tests itself (`test_torch_suite*`), `test_compile`,
`test_schedulers`.
"""

from __future__ import annotations

import copy
import doctest
import sys
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._python_dispatch import TorchDispatchMode

from support.lions import (
    KINDS,
    give_gradients,
    model,
    parameters,
    same,
    snapshot,
    train,
)


def _ones(*shape: int, **options: Any) -> Parameter:
    return Parameter(torch.ones(shape), **options)


# Steps


def test_closure(kind: Any) -> None:
    """The closure runs with gradients enabled and its loss is returned."""
    net = model()
    optimizer = kind(net.parameters())

    def closure() -> Tensor:
        loss = net(torch.ones(4, 3)).square().sum()
        loss.backward()
        return loss

    with torch.no_grad():
        loss = optimizer.step(closure)
    assert loss.item() > 0
    assert len(optimizer.state) == 4
    assert optimizer.step() is None


def test_is_an_optimizer(kind: Any) -> None:
    """Frameworks ask for the class; the step has its name in the profiler."""
    optimizer = kind([_ones(2)])
    assert isinstance(optimizer, torch.optim.Optimizer)
    with torch.autograd.profiler.profile() as profile:
        train(optimizer, 1)
    names = {event.name for event in profile.function_events}
    assert f"Optimizer.step#{kind.__name__}.step" in names


def test_param_without_gradient_stays(kind: Any) -> None:
    """It is not moved, decayed or given state; a group without gradients counts no step."""
    a, b = _ones(2), _ones(2)
    optimizer = kind([{"params": [a]}, {"params": [b]}], lr=0.1, weight_decay=0.5)
    give_gradients([a])
    optimizer.step()
    assert b.tolist() == [1.0, 1.0]
    assert list(optimizer.state) == [a]
    assert [int(group["step"]) for group in optimizer.param_groups] == [1, 0]


def test_nothing_has_a_gradient(case: tuple[Any, dict[str, Any]]) -> None:
    """Such a step moves and counts nothing, on a fresh optimizer or later."""
    kind, options = case
    optimizer = kind(model().parameters(), **options)
    optimizer.step()
    assert same(parameters(optimizer), list(model().parameters()))
    assert optimizer.param_groups[0]["step"] == 0
    train(optimizer)
    before = snapshot(optimizer)
    optimizer.zero_grad()
    optimizer.step()
    assert same(snapshot(optimizer), before)


def test_empty_group(case: tuple[Any, dict[str, Any]]) -> None:
    """A group may have no parameters; the others move as if it were not there."""
    kind, options = case
    alone, beside = _ones(3), _ones(3)
    train(kind([alone], **options))
    optimizer = kind([{"params": []}, {"params": [beside]}], **copy.deepcopy(options))
    train(optimizer)
    assert torch.equal(alone, beside)
    assert optimizer.state_dict()["param_groups"][0]["params"] == []


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)], ids=str)
def test_scalar_and_empty_tensors(case: tuple[Any, dict[str, Any]], shape: tuple[int, ...]) -> None:
    """0-d and empty parameters step like any others, and disturb none."""
    kind, options = case
    param = Parameter(torch.full(shape, 2.0))
    optimizer = kind([param], **options)
    for _ in range(4):
        param.grad = torch.ones(shape)
        optimizer.step()
    assert param.shape == shape
    assert param.isfinite().all()
    assert bool((param != 2).all())
    assert all(each.shape == shape for each in optimizer.state[param].values())


def test_several_param_groups_count_alike(kind: Any) -> None:
    """Every group with gradients counts each step, once."""
    optimizer = kind([{"params": _ones(2)}, {"params": _ones(3)}])
    train(optimizer, 4)
    assert [int(group["step"]) for group in optimizer.param_groups] == [4, 4]


def test_step_is_deterministic(case: tuple[Any, dict[str, Any]]) -> None:
    """The same run gives the same bits again; nothing depends on what ran before."""
    kind, options = case
    first, second = (
        kind(model(torch.bfloat16).parameters(), **{"lr": 0.01, **copy.deepcopy(options)})
        for _ in range(2)
    )
    train(first)
    torch.rand(5)
    train(second)
    assert same(snapshot(first), snapshot(second))


# Learning rates


def test_lr_tensor(case: tuple[Any, dict[str, Any]]) -> None:
    """A tensor lr does what the same float does, is read anew in each step and never written."""
    kind, options = case
    lr = torch.tensor(0.25)
    by_float, by_tensor = (
        kind(model().parameters(), **{**options, "lr": value}) for value in (0.25, lr)
    )
    train(by_float)
    train(by_tensor)
    assert lr.item() == 0.25
    by_float.param_groups[0]["lr"] = 0.125
    lr.fill_(0.125)
    assert same(train(by_float), train(by_tensor))
    assert by_tensor.param_groups[0]["lr"] is lr


def test_lr_zero_changes_no_weight_but_counts(kind: Any) -> None:
    """A warm-up that begins with lr 0 fills the momentum and counts."""
    param = _ones(3)
    optimizer = kind([param], lr=0.0, weight_decay=0.5)
    give_gradients([param])
    optimizer.step()
    assert param.tolist() == [1.0] * 3
    assert optimizer.state[param]["exp_avg"].abs().sum() > 0
    assert optimizer.param_groups[0]["step"] == 1


def test_lr_zero_and_zero_gradients_change_no_weight(case: tuple[Any, dict[str, Any]]) -> None:
    """Not on fresh state and not later: decay is part of the step."""
    kind, options = case
    if options.get("decoupled_weight_decay"):
        options["lr"] = 1.0
    if "ema_overwrite_frequency" in options:
        options["ema_overwrite_frequency"] = 1000  # an overwrite is asked for, and no step
    optimizer = kind(model().parameters(), **{**options, "weight_decay": 0.5})
    train(optimizer, 2)
    optimizer.param_groups[0]["lr"] = 0.0
    before = [param.detach().clone() for param in parameters(optimizer)]
    for _ in range(2):
        for param in parameters(optimizer):
            param.grad = torch.zeros_like(param)
        optimizer.step()
    assert same(parameters(optimizer), before)


# Initialisation


def test_first_step_without_lr_and_gradient_only_creates_state(
    case: tuple[Any, dict[str, Any]],
) -> None:
    """So torch.distributed.checkpoint makes state; it is no step, the same again is one."""
    kind, options = case
    if options.get("decoupled_weight_decay"):
        return  # lr 0 comes after construction there, see below
    lr = torch.tensor(0.0) if isinstance(options.get("lr"), Tensor) else 0.0
    made, initialised = (
        kind(model().parameters(), **{**options, "lr": lr, "weight_decay": 0.5}) for _ in range(2)
    )
    for param in parameters(made):
        param.grad = torch.zeros_like(param)
    made.step()
    initialised.init_state()
    assert same(snapshot(made), snapshot(initialised))
    assert made.param_groups[0]["step"] == made.param_groups[0]["micro_step"] == 0
    made.step()
    counted = made.param_groups[0]["step"] + made.param_groups[0]["micro_step"]
    assert counted == 1


def test_init_by_checkpoint_under_decoupled_decay(kind: Any) -> None:
    """lr is set to 0 for the step that initialises; the decay is still relative to the first."""
    param = _ones(3)
    optimizer = kind([param], lr=0.5, weight_decay=0.1, decoupled_weight_decay=True)
    optimizer.param_groups[0]["lr"] = 0.0
    param.grad = torch.zeros(3)
    optimizer.step()
    assert param.tolist() == [1.0] * 3
    assert optimizer.param_groups[0]["step"] == 0
    assert optimizer.param_groups[0]["reference_lr"] == 0.5


def test_init_state_creates_all_state(case: tuple[Any, dict[str, Any]]) -> None:
    """Every parameter that requires a gradient gets its state, what is there stays."""
    kind, options = case
    a, b, frozen = (_ones(2, requires_grad=requires) for requires in (True, True, False))
    optimizer = kind([a, b, frozen], **options)
    give_gradients([a])
    optimizer.step()
    before = {name: value.clone() for name, value in optimizer.state[a].items()}
    optimizer.init_state()
    assert same(list(optimizer.state[a].values()), list(before.values()))
    assert optimizer.state[b].keys() == before.keys()
    assert optimizer.state[b]["exp_avg"].tolist() == [0.0, 0.0]
    assert frozen not in optimizer.state


def test_initialised_and_lazy_runs_are_equal(case: tuple[Any, dict[str, Any]]) -> None:
    """State that was made early changes no bit of what follows."""
    kind, options = case
    early, late = (kind(model().parameters(), **copy.deepcopy(options)) for _ in range(2))
    early.init_state()
    train(early)
    train(late)
    assert same(snapshot(early), snapshot(late))


@pytest.mark.parametrize(
    ("options", "dtype", "expected"),
    [
        ({}, torch.bfloat16, {"exp_avg": torch.bfloat16}),
        ({"state_dtype": torch.float32}, torch.bfloat16, {"exp_avg": torch.float32}),
        ({"state_dtype": "bfloat16"}, torch.float32, {"exp_avg": torch.bfloat16}),
        ({"state_dtype": torch.float32}, torch.complex64, {"exp_avg": torch.complex64}),
        ({"rounding": "split"}, torch.float32, {"exp_avg": torch.float32}),
        (
            {"rounding": "split"},
            torch.bfloat16,
            {"exp_avg": torch.bfloat16, "residual": torch.int16},
        ),
        ({"use_ema": True}, torch.float16, {"exp_avg": torch.float16, "ema": torch.float32}),
        (
            {"gradient_accumulation_steps": 2},
            torch.float64,
            {"exp_avg": torch.float64, "accumulator": torch.float64},
        ),
        (
            {"gradient_accumulation_steps": 2, "use_ema": True},
            torch.complex64,
            {
                "exp_avg": torch.complex64,
                "accumulator": torch.complex64,
                "ema": torch.complex64,
            },
        ),
    ],
    ids=str,
)
def test_state_is_what_the_options_need(
    kind: Any, options: dict[str, Any], dtype: torch.dtype, expected: dict[str, torch.dtype]
) -> None:
    """One momentum, and for some options one tensor more, in a dtype that loses nothing."""
    param = Parameter(torch.ones(2, 3, dtype=dtype))
    optimizer = kind([param], lr=0.25, **options)
    optimizer.init_state()
    assert {name: value.dtype for name, value in optimizer.state[param].items()} == expected


@pytest.mark.parametrize("flatten", [False, True], ids=["nested", "flattened"])
def test_distributed_checkpoint_state_dict(case: tuple[Any, dict[str, Any]], flatten: bool) -> None:
    """torch.distributed.checkpoint's get and set lose nothing."""
    from torch.distributed.checkpoint import state_dict as dcp

    kind, options = case
    first, second = model(torch.bfloat16), model(torch.bfloat16)
    optimizer = kind(first.parameters(), **{"lr": 0.01, **options})
    twin = kind(second.parameters(), **{"lr": 0.01, **copy.deepcopy(options)})
    optimizer.param_groups[0]["horizon"] = 10.0
    train(optimizer)
    how = dcp.StateDictOptions(flatten_optimizer_state_dict=flatten)
    saved = copy.deepcopy(dcp.get_optimizer_state_dict(first, optimizer, options=how))
    dcp.set_optimizer_state_dict(second, twin, saved, options=how)
    second.load_state_dict(first.state_dict())
    assert twin.param_groups[0]["horizon"] == 10.0
    assert same(snapshot(optimizer), snapshot(twin))
    assert same(train(optimizer, seed=9), train(twin, seed=9))


# Groups


def test_add_param_group_starts_its_own_count(kind: Any) -> None:
    """A group that comes later counts from its own beginning, with options of its own."""
    a, b = _ones(2), _ones(2)
    optimizer = kind([a], lr=0.1)
    train(optimizer, 2)
    optimizer.add_param_group({"params": b, "lr": 0.2})
    train(optimizer, 1)
    assert [int(group["step"]) for group in optimizer.param_groups] == [3, 1]
    assert optimizer.param_groups[1]["reference_lr"] == 0.2


def test_group_that_comes_later_moves_as_in_an_optimizer_of_its_own(
    case: tuple[Any, dict[str, Any]],
) -> None:
    """A group has its own everything, but for what all groups share."""
    kind, options = case
    if options.keys() & {"global_clipnorm", "rounding", "gradient_accumulation_steps", "use_ema"}:
        return  # one norm, one number of the parameter, one count of micro-steps
    late, alone = _ones(3), _ones(3)
    optimizer = kind([_ones(2)], **options)
    train(optimizer, 2)
    optimizer.add_param_group({"params": [late]})
    own = kind([alone], **copy.deepcopy(options))
    for seed in range(3):
        give_gradients(parameters(optimizer), seed)
        give_gradients([late], seed)
        optimizer.step()
    train(own)
    assert torch.equal(late, alone)


def test_frozen_and_later_unfrozen(case: tuple[Any, dict[str, Any]]) -> None:
    """Frozen, a parameter keeps its bits and its state; unfrozen, it goes on from there."""
    kind, options = case
    optimizer = kind(model().parameters(), **options)
    first = parameters(optimizer)[0]
    train(optimizer, 2)
    first.requires_grad_(False)
    kept = [first.detach().clone(), optimizer.state[first]["exp_avg"].clone()]
    for seed in range(2):
        give_gradients(parameters(optimizer)[1:], seed)
        first.grad = None
        optimizer.step()
    if not options.get("ema_overwrite_frequency"):
        assert same([first, optimizer.state[first]["exp_avg"]], kept)
    first.requires_grad_(True)
    train(optimizer, 2)
    assert not torch.equal(first.detach(), kept[0])


def test_groups_of_another_optimizer_share_no_count(kind: Any) -> None:
    """Groups handed from one optimizer to the next do not count twice."""
    first = kind([_ones(2)])
    second = kind([dict(group) for group in first.param_groups])
    train(second, 1)
    assert first.param_groups[0]["step"] == 0
    assert second.param_groups[0]["step"] == 1


def test_decay_is_applied_once_with_mixed_dtypes(kind: Any) -> None:
    """A group of several dtypes, in batches of one each, decays each weight once."""
    dtypes = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64)
    params = [Parameter(torch.full((2,), 2, dtype=dtype)) for dtype in dtypes]
    optimizer = kind(params, lr=0.5, weight_decay=0.5)
    for param in params:
        param.grad = torch.zeros_like(param)
    optimizer.step()
    assert all(param.tolist() == [1.5, 1.5] for param in params)


def test_named_parameters(kind: Any) -> None:
    """Names are kept in the groups and in the state dict, and survive a copy."""
    optimizer = kind(model().named_parameters())
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    for each in (optimizer, copy.deepcopy(optimizer)):
        assert each.state_dict()["param_groups"][0]["param_names"] == names
        train(each, 1)


def test_zero_grad_uses_foreach(kind: Any) -> None:
    """`zero_grad(set_to_none=False)` zeroes all gradients at once where foreach is on."""
    calls: list[str] = []

    class Record(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            calls.append(str(func))
            return func(*args, **(kwargs or {}))

    optimizer = kind(model().parameters(), foreach=True)
    train(optimizer, 1)
    with Record():
        optimizer.zero_grad(set_to_none=False)
    assert [call for call in calls if "zero" in call] == ["aten._foreach_zero_.default"]
    assert all(param.grad.count_nonzero() == 0 for param in parameters(optimizer))  # type: ignore[union-attr]


# What is refused, and what changes nothing before the error


def test_sparse_gradients_are_refused(case: tuple[Any, dict[str, Any]]) -> None:
    """With the way out; and nothing has changed when the error comes."""
    kind, options = case
    dense, param = _ones(2), _ones(4, 2)
    optimizer = kind([dense, param], **options)
    train(optimizer, 2)
    before = snapshot(optimizer)
    dense.grad = torch.ones(2)
    param.grad = torch.ones(4, 2).to_sparse()
    message = f"{kind.__name__} does not support sparse gradients: .* sparse=False"
    with pytest.raises(RuntimeError, match=message):
        optimizer.step()
    param.grad = None
    assert same(snapshot(optimizer), before)


# Horizon


def test_horizon_is_a_constant_of_the_group(kind: Any) -> None:
    """The first momentum after horizon 10 is 10/11 seed and 1/11 gradient."""
    param = Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = kind([{"params": [param], "horizon": 10.0}])
    optimizer.init_state()
    seed = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    optimizer.state[param]["exp_avg"].copy_(seed)
    give_gradients([param])
    optimizer.step()
    expected = (10 * seed + param.grad) / 11
    torch.testing.assert_close(optimizer.state[param]["exp_avg"], expected)
    assert optimizer.param_groups[0]["horizon"] == 10.0


def test_first_step_after_a_horizon_takes_the_mixed_sign() -> None:
    """The horizon does not touch the update: sign(.9 m + .1 g)."""
    param = Parameter(torch.zeros(64))
    optimizer = KINDS["lion"]([{"params": [param], "horizon": 10.0}], lr=1.0)
    optimizer.init_state()
    seed = torch.randn(64, generator=torch.Generator().manual_seed(3))
    optimizer.state[param]["exp_avg"].copy_(seed)
    give_gradients([param])
    optimizer.step()
    assert torch.equal(param.detach(), -(0.9 * seed + 0.1 * param.grad).sign())


def test_horizon_holds_for_its_group_alone(kind: Any) -> None:
    """Beside it another group keeps its beta2."""
    a, b = (Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    optimizer = kind([{"params": [a], "horizon": 0.0}, {"params": [b]}], betas=(0.9, 0.5))
    give_gradients([a, b])
    optimizer.step()
    assert torch.equal(optimizer.state[a]["exp_avg"], a.grad)
    assert torch.equal(optimizer.state[b]["exp_avg"], 0.5 * b.grad)


def test_examples_in_docstrings(kind: Any) -> None:
    """The example runs as it stands."""
    results = doctest.testmod(sys.modules[kind.__module__])
    assert results.attempted > 0
    assert results.failed == 0

"""State dicts from torch.distributed.checkpoint and of shards, on one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, distributed
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.nn import Parameter

from liontool.optim import Lion
from support.lions import give_gradients, model, parameters, same, snapshot, train

EVERYTHING: dict[str, Any] = {
    "lr": 0.01, "rounding": "split", "state_dtype": torch.float32, "use_ema": True,
    "gradient_accumulation_steps": 2, "weight_decay": 0.1,
}  # fmt: skip


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flattened"])
def test_state_is_loaded_bit_for_bit_by_dcp(flat: bool) -> None:
    """torch.distributed.checkpoint hands it over in both its forms."""
    options = StateDictOptions(flatten_optimizer_state_dict=flat)
    first, second = model(torch.bfloat16), model(torch.bfloat16)
    optimizer = Lion(first.parameters(), **EVERYTHING)
    train(optimizer)
    second.load_state_dict(first.state_dict())
    twin = Lion(second.parameters(), **(EVERYTHING if flat else {}))
    saved = get_optimizer_state_dict(first, optimizer, options=options)
    set_optimizer_state_dict(second, twin, saved, options=options)
    assert same(snapshot(twin), snapshot(optimizer))
    assert all(map(torch.equal, train(twin), train(optimizer)))


FLAT = StateDictOptions(flatten_optimizer_state_dict=True, strict=False)


def _flat(**options: Any) -> tuple[torch.nn.Module, Any, dict[str, Any]]:
    """A model, its trained optimizer, and the flattened state of that."""
    net = model(torch.bfloat16)
    optimizer = Lion(net.parameters(), lr=0.1, **options)
    train(optimizer)
    return net, optimizer, get_optimizer_state_dict(net, optimizer, options=FLAT)


@pytest.mark.parametrize("way_out", ["init_state", "zero_grad"])
def test_flattened_state_that_dcp_does_not_read_is_refused(way_out: str) -> None:
    """It asks for nothing where there is no state but gradients; both ways out lead out."""
    net, optimizer, saved = _flat()
    twin = Lion(net.parameters())
    with pytest.raises(ValueError, match=r"call optimizer.init_state\(\) before .*, or load "):
        set_optimizer_state_dict(net, twin, saved, options=FLAT)
    getattr(twin, way_out)()
    set_optimizer_state_dict(net, twin, saved, options=FLAT)
    assert same(snapshot(twin), snapshot(optimizer))


def test_flattened_state_that_dcp_reads_in_part_is_refused() -> None:
    """A parameter that had no gradient yet would lose its momentum."""
    net, _, saved = _flat()
    twin = Lion(net.parameters(), lr=0.1)
    net.zero_grad()
    give_gradients(parameters(twin)[:1])
    twin.step()
    with pytest.raises(ValueError, match=r"parameter 0\.bias: the optimizer had no state for"):
        set_optimizer_state_dict(net, twin, saved, options=FLAT)


def test_flattened_state_may_lack_a_parameter() -> None:
    """What the run had not used has no momentum in the file either."""
    net, optimizer, saved = _flat()
    del saved["state.0.weight.exp_avg"]
    net.zero_grad()
    twin = Lion(net.parameters())
    set_optimizer_state_dict(net, twin, saved, options=FLAT)
    first, *others = parameters(twin)
    assert first not in twin.state
    assert all(
        torch.equal(twin.state[param]["exp_avg"], optimizer.state[param]["exp_avg"])
        for param in others
    )


def test_flattened_state_without_any_momentum_is_refused() -> None:
    """Then it is under another name, which DCP did not ask for."""
    net, _, saved = _flat()
    renamed = {name.replace(".exp_avg", ".state1"): value for name, value in saved.items()}
    net.zero_grad()
    with pytest.raises(ValueError, match=r"has no 'exp_avg', .* without flatten_optimizer_state"):
        set_optimizer_state_dict(net, Lion(net.parameters()), renamed, options=FLAT)


@pytest.mark.parametrize(
    ("option", "name"),
    [
        ({"rounding": "split"}, "residual"),
        ({"use_ema": True}, "ema"),
        ({"gradient_accumulation_steps": 2}, "accumulator"),
    ],
)
def test_flattened_state_needs_its_options(option: dict[str, Any], name: str) -> None:
    """DCP asks for the state that the live optimizer has; what it lacks would be lost."""
    net, optimizer, saved = _flat(**option)
    net.zero_grad()
    message = f"'{name}' was not read, .* construct the optimizer with {next(iter(option))}="
    with pytest.raises(ValueError, match=message):
        set_optimizer_state_dict(net, Lion(net.parameters()), saved, options=FLAT)
    twin = Lion(net.parameters(), **option)
    set_optimizer_state_dict(net, twin, saved, options=FLAT)
    assert same(snapshot(twin), snapshot(optimizer))


def test_flattened_state_may_lack_an_option_that_is_asked_for() -> None:
    """It was switched on after the last step; then the next step makes the state."""
    net, _, saved = _flat()
    for name in [name for name in saved if name.endswith("use_ema")]:
        saved[name] = True
    net.zero_grad()
    twin = Lion(net.parameters(), use_ema=True)
    set_optimizer_state_dict(net, twin, saved, options=FLAT)
    assert set(twin.state[parameters(twin)[0]]) == {"exp_avg"}


def test_nested_state_that_was_not_read_is_refused() -> None:
    """Read into the state of a live optimizer, as from files, it lacks what that did not have."""
    net = model(torch.bfloat16)
    optimizer = Lion(net.parameters(), lr=0.1, use_ema=True)
    train(optimizer)
    net.zero_grad()
    saved = get_optimizer_state_dict(net, optimizer)
    twin = Lion(net.parameters())
    read = get_optimizer_state_dict(net, twin)
    read["param_groups"] = saved["param_groups"]
    message = (
        r"'ema' was not read, .* asks for the state that the optimizer has; construct the "
        r"optimizer with use_ema=True, .* before loading"
    )
    with pytest.raises(ValueError, match=message):
        set_optimizer_state_dict(net, twin, read)


def test_nested_state_is_loaded_as_a_plain_one() -> None:
    """Where it is not what a live optimizer asked for, what it lacks was never there."""
    net = model(torch.bfloat16)
    optimizer = Lion(net.parameters(), lr=0.1)
    train(optimizer)
    net.zero_grad()
    optimizer.param_groups[0]["rounding"] = "split"
    saved = get_optimizer_state_dict(net, optimizer)
    twin = Lion(net.parameters(), use_ema=True)
    set_optimizer_state_dict(net, twin, saved)
    assert twin.param_groups[0]["rounding"] == "split"
    assert set(twin.state[parameters(twin)[0]]) == {"exp_avg"}


def test_nested_state_that_dcp_does_not_read_is_refused() -> None:
    """Where gradients exist but no state, it asks for the groups alone."""
    net = model(torch.bfloat16)
    optimizer = Lion(net.parameters(), lr=0.1)
    train(optimizer)
    saved = get_optimizer_state_dict(net, optimizer)
    twin = Lion(net.parameters())
    read = get_optimizer_state_dict(net, twin)
    assert not read["state"]
    read["param_groups"] = saved["param_groups"]
    with pytest.raises(ValueError, match=r"call optimizer\.init_state\(\) before"):
        set_optimizer_state_dict(net, twin, read)
    twin.init_state()
    set_optimizer_state_dict(net, twin, saved)
    assert same(snapshot(twin), snapshot(optimizer))


def test_nested_state_that_dcp_reads_in_part_is_refused() -> None:
    """With strict=False it would leave a parameter without momentum that has a gradient."""
    net = model(torch.bfloat16)
    optimizer = Lion(net.parameters(), lr=0.1)
    train(optimizer)
    groups = get_optimizer_state_dict(net, optimizer)["param_groups"]
    net.zero_grad()
    twin = Lion(net.parameters(), lr=0.1)
    give_gradients(parameters(twin)[:1])
    twin.step()
    give_gradients(parameters(twin))
    read = {**get_optimizer_state_dict(net, twin), "param_groups": groups}
    assert list(read["state"]) == ["0.weight"]
    options = StateDictOptions(strict=False)
    with pytest.raises(ValueError, match=r"parameter 0\.bias: the optimizer had no state for"):
        set_optimizer_state_dict(net, twin, read, options=options)
    net.zero_grad()
    set_optimizer_state_dict(net, twin, read, options=options)
    assert list(twin.state) == parameters(twin)[:1]


@pytest.fixture
def mesh() -> Iterator[Any]:
    """A mesh of this one process."""
    store = distributed.HashStore()
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield distributed.init_device_mesh("cpu", (1,))
    distributed.destroy_process_group()


def _sharded(mesh: Any, values: Tensor) -> Tensor:
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(values, mesh, [Shard(0)])


def test_state_of_shards_stays_sharded(mesh: Any) -> None:
    """Bits and placements are kept; what optimi keeps of weights becomes a sharded residual."""
    weights = torch.tensor([1.0, -2.0, 3.0], dtype=torch.bfloat16)
    optimizer = Lion([Parameter(_sharded(mesh, weights))], rounding="split")
    momentum = torch.tensor([1 / 3, 1.0, -1.0])
    compensation = torch.tensor([1e-3, -1e-3, 0.0], dtype=torch.bfloat16)
    entry = {
        "exp_avg": _sharded(mesh, momentum),
        "kahan_comp": _sharded(mesh, compensation),
    }
    optimizer.load_state_dict({"state": {0: entry}, "param_groups": [{"params": [0]}]})
    loaded: Any = optimizer.state[parameters(optimizer)[0]]
    assert {name: value.placements for name, value in loaded.items()} == {
        "exp_avg": entry["exp_avg"].placements,  # type: ignore[attr-defined]
        "residual": entry["exp_avg"].placements,  # type: ignore[attr-defined]
    }
    assert torch.equal(loaded["exp_avg"].to_local(), momentum)
    assert loaded["residual"].to_local().sign().tolist() == [1, 1, 0]


def test_whole_state_of_sharded_weights_is_refused(mesh: Any) -> None:
    """The message names the function that cuts it."""
    optimizer = Lion([Parameter(_sharded(mesh, torch.ones(3)))])
    saved = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}
    message = "'exp_avg' is not sharded as the parameter is; .*init_state.*set_optimizer_state_dict"
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(saved)


def test_whole_correction_of_sharded_weights_is_refused(mesh: Any) -> None:
    """It is not laid over the shards, whatever it would come to."""
    weights = _sharded(mesh, torch.ones(3, dtype=torch.bfloat16))
    optimizer = Lion([Parameter(weights)], rounding="split")
    entry = {
        "exp_avg": _sharded(mesh, torch.ones(3)),
        "kahan_comp": torch.ones(3, dtype=torch.bfloat16),
    }
    with pytest.raises(ValueError, match="'kahan_comp' is not sharded as the parameter is"):
        optimizer.load_state_dict({"state": {0: entry}, "param_groups": [{"params": [0]}]})


def test_compressed_momentum_of_shards(mesh: Any) -> None:
    """FlashLion's 8 bits of a shard become a shard."""
    optimizer = Lion([Parameter(_sharded(mesh, torch.ones(3)))])
    entry = {
        "exp_avg::quantized": _sharded(mesh, torch.tensor([127, -127, 0], dtype=torch.int8)),
        "exp_avg::scales": _sharded(mesh, torch.tensor([0.5], dtype=torch.float16)),
    }
    group = {"params": [0], "lr": 0.1, "master_bytewidth": 0}
    with pytest.warns(UserWarning, match="drops: master_bytewidth"):
        optimizer.load_state_dict({"state": {0: entry}, "param_groups": [group]})
    momentum: Any = optimizer.state[parameters(optimizer)[0]]["exp_avg"]
    assert momentum.placements == entry["exp_avg::quantized"].placements  # type: ignore[attr-defined]
    assert momentum.to_local().tolist() == [0.5, -0.5, 0.0]

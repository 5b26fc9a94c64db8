"""Optimizer state through torch.distributed.checkpoint: bit for bit, on one process and on two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed import checkpoint as dcp
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from support import dcp_runs
from support.dcp_runs import FLAT, OPTIONS, WAYS, Run, empty
from support.processes import on_ranks

# torch warns whoever saves from one process.
pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is disabled")

ON_ONE = ["nested", "flat", "on the CPU", "full", "full flat"]
FLATTENED = StateDictOptions(**FLAT)


def _same(one: Any, other: Any, path: str = "") -> None:
    """The same keys, values, dtypes and bits; says where it is not so."""
    assert isinstance(other, type(one)), path
    if isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            _same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list):
        for place, (mine, its) in enumerate(zip(one, other, strict=True)):
            _same(mine, its, f"{path}/{place}")
    elif isinstance(one, Tensor):
        assert one.dtype == other.dtype, path
        assert torch.equal(one, other), path
    else:
        assert one == other, path


def _flat_state(run: Run) -> dict[str, Any]:
    return get_optimizer_state_dict(run.model, run.optimizer, options=FLATTENED)


def test_there_is_something_to_lose() -> None:
    """The run has counts, a horizon, and state in four dtypes, none of it by default."""
    facts = Run().trained().facts()
    assert {str(value.dtype) for value in facts["state"].values()} == {
        "torch.float32", "torch.int16",
    }  # fmt: skip
    assert len(facts["state"]) == 4 * 4
    first, second = facts["groups"]
    assert (int(first["step"]), int(first["micro_step"]), first["horizon"]) == (2, 1, 10.0)
    assert (first["lr"], first["reference_lr"]) == (3e-3, 1e-2)
    assert (first["weight_decay"], second["weight_decay"]) == (0.1, 0.0)
    assert all(bool(value.count_nonzero()) for value in facts["state"].values())


@pytest.fixture(scope="module")
def one() -> dict[str, Any]:
    """Each way on one process."""
    return dcp_runs.through_memory(ON_ONE)


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """Each way on 2 ranks."""
    return on_ranks(2, dcp_runs.through_memory, list(WAYS))


@pytest.mark.parametrize("way", ON_ONE)
def test_through_memory(way: str, one: dict[str, Any]) -> None:
    """State, counts and options come over, and training goes on in the same bits."""
    _same(*one[way])


@pytest.mark.parametrize("way", WAYS)
def test_through_memory_of_two_ranks(
    way: str, one: dict[str, Any], two: list[dict[str, Any]]
) -> None:
    """Shards too, gathered or not; and they are the shards of what one process has."""
    for rank in two:
        _same(*rank[way])
        _same(rank[way][0], one["nested"][0])


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_from_one_process_onto_shards(flat: bool, one: dict[str, Any]) -> None:
    """State of a single process, residuals included, is cut into shards."""
    options = StateDictOptions(**(FLAT if flat else {}))
    run = Run().trained()
    state = get_optimizer_state_dict(run.model, run.optimizer, options=options)
    for rank in on_ranks(2, dcp_runs.from_one_process, state):
        for way, facts in rank.items():
            _same(one["nested"][0], facts, way)


@pytest.mark.parametrize("readers", [1, 2])
@pytest.mark.parametrize("writers", [1, 2])
def test_through_files(writers: int, readers: int, tmp_path: Path) -> None:
    """So they come through files, nested and flat, onto another number of ranks too."""
    folders = {flat: str(tmp_path / str(flat)) for flat in (False, True)}
    saved = dcp_runs.save(folders) if writers == 1 else on_ranks(writers, dcp_runs.save, folders)[0]
    loaded = [dcp_runs.load(folders)] if readers == 1 else on_ranks(readers, dcp_runs.load, folders)
    for rank in loaded:
        for flat in folders:
            _same(saved, rank[flat], str(flat))


@pytest.mark.parametrize("lr", [1e-2, torch.tensor(1e-2)], ids=["float", "tensor"])
@pytest.mark.parametrize("options", [StateDictOptions(), FLATTENED], ids=["nested", "flat"])
def test_taking_state_of_a_new_optimizer(lr: Any, options: StateDictOptions) -> None:
    """DCP then steps once to have state; that step is not counted and moves nothing."""
    run = Run(options={**OPTIONS, "lr": lr})
    before = [param.detach().clone() for param in run.model.parameters()]
    get_optimizer_state_dict(run.model, run.optimizer, options=options)
    facts = run.facts()
    for group in facts["groups"]:
        assert (int(group["step"]), int(group["micro_step"])) == (0, 0)
        assert group["lr"] == lr
        assert group["reference_lr"] == pytest.approx(1e-2)
    for weight, old in zip(facts["weights"].values(), before, strict=True):
        assert torch.equal(weight, old)
    for name, value in facts["state"].items():
        old = facts["weights"][name.removesuffix(".ema")].float() if "ema" in name else 0
        assert bool((value == old).all())


def test_flat_state_for_an_optimizer_without_state() -> None:
    """DCP would lose the momentum if gradients exist; it is refused, with two ways out."""
    state = _flat_state(Run().trained())
    run = empty()
    run.model(torch.ones(1, 3).bfloat16()).sum().backward()
    with pytest.raises(ValueError, match=r"call optimizer\.init_state\(\) before .* reads"):
        set_optimizer_state_dict(run.model, run.optimizer, state)
    run.optimizer.init_state()
    set_optimizer_state_dict(run.model, run.optimizer, state)
    _same(run.facts()["state"], Run().trained().facts()["state"])
    other = empty()
    other.model(torch.ones(1, 3).bfloat16()).sum().backward()
    other.optimizer.zero_grad()
    set_optimizer_state_dict(other.model, other.optimizer, state)
    _same(other.facts()["state"], Run().trained().facts()["state"])


NEWER = ("agreement", "horizon", "rounding_seed", "micro_step")


def test_flat_state_of_an_older_version() -> None:
    """Of options that it lacks, a state dict laid over the live one takes those."""
    old = {
        key: value for key, value in _flat_state(Run().trained()).items() if not key.endswith(NEWER)
    }
    run = empty()
    with pytest.raises(KeyError):  # torch's own words; it asks nobody
        set_optimizer_state_dict(run.model, run.optimizer, dict(old))
    set_optimizer_state_dict(run.model, run.optimizer, _flat_state(run) | old)
    _same(run.facts()["state"], Run().trained().facts()["state"])
    group = run.optimizer.param_groups[0]
    assert (group["agreement"], group["horizon"], group["rounding_seed"]) == ("tensor", None, 0)
    assert (int(group["step"]), group["lr"]) == (2, 3e-3)


@pytest.mark.parametrize("flat", [False, True], ids=["nested", "flat"])
def test_files_of_an_older_version(flat: bool, tmp_path: Path) -> None:
    """From files, a planner that allows partial loads leaves them as constructed."""
    options = StateDictOptions(**(FLAT if flat else {}))
    saved, run = Run().trained(), empty()
    state = get_optimizer_state_dict(saved.model, saved.optimizer, options=options)
    groups = [state] if flat else state["param_groups"]
    for group in groups:
        for key in [key for key in group if key.endswith(NEWER)]:
            del group[key]
    dcp.save(state, checkpoint_id=tmp_path)
    fresh = get_optimizer_state_dict(run.model, run.optimizer, options=options)
    planner = dcp.DefaultLoadPlanner(allow_partial_load=True)
    dcp.load(fresh, checkpoint_id=tmp_path, planner=planner)
    set_optimizer_state_dict(run.model, run.optimizer, fresh)
    _same(run.facts()["state"], saved.facts()["state"])
    group = run.optimizer.param_groups[0]
    assert (group["agreement"], int(group["step"]), group["lr"]) == ("tensor", 2, 3e-3)


def test_state_of_a_part_of_the_model() -> None:
    """With strict=False, parameters without saved state begin anew, and the others go on."""
    saved, run = Run().trained(), empty()
    state = get_optimizer_state_dict(saved.model, saved.optimizer)
    del state["state"]["1.weight"]
    with pytest.raises(RuntimeError, match=r"Missing optimizer state for parameter '1\.weight'"):
        set_optimizer_state_dict(run.model, run.optimizer, state)
    partial = StateDictOptions(strict=False)
    set_optimizer_state_dict(run.model, run.optimizer, state, options=partial)
    kept = {
        name: value
        for name, value in saved.facts()["state"].items()
        if not name.startswith("1.weight")
    }
    got = run.facts()["state"]
    _same({name: got[name] for name in kept}, kept)
    run.train(range(5, 7))
    assert run.optimizer.param_groups[1]["step"] == 3

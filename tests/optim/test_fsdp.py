"""Training on shards of many processes beside training on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from support import fsdp_habits, fsdp_runs
from support.fsdp_runs import CASES, WITH_NORM
from support.processes import on_ranks

EVERY = [*CASES, *WITH_NORM]
ON_TWO = ["cautious", "stochastic", "split", "skip lion_sf", "all at once", "global_clipnorm"]


@pytest.fixture(scope="module")
def four() -> list[dict[str, Any]]:
    """Every case on 4 ranks."""
    return on_ranks(4, fsdp_runs.runs, EVERY)


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """Some cases on 2 ranks."""
    return on_ranks(2, fsdp_runs.runs, ON_TWO)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    """Every case on one process."""
    return fsdp_runs.runs(EVERY)


def _same_bits(sharded: Tensor, full: Tensor) -> None:
    assert sharded.dtype == full.dtype
    torch.testing.assert_close(sharded, full, rtol=0, atol=0, equal_nan=True)


def _close(sharded: Tensor, full: Tensor) -> None:
    torch.testing.assert_close(sharded, full, rtol=1e-6, atol=1e-6)


def _compare(
    ranks: list[dict[str, Any]], alone: dict[str, Any], name: str, check: Callable[..., None]
) -> None:
    for rank in ranks:
        assert rank[name]["counters"] == alone[name]["counters"]
        for sharded, full in zip(rank[name]["tensors"], alone[name]["tensors"], strict=True):
            assert sharded.keys() == full.keys()
            for key in sharded.keys() - {"places"}:
                check(sharded[key], full[key].flatten()[sharded["places"]])


@pytest.mark.parametrize("name", CASES)
def test_four_ranks_equal_one(name: str, four: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Weights and state on 4 ranks, uneven and empty pieces too, have the bits of one process."""
    _compare(four, alone, name, _same_bits)


@pytest.mark.parametrize("name", [name for name in ON_TWO if name in CASES])
def test_two_ranks_equal_one(name: str, two: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """So they have on 2 ranks."""
    _compare(two, alone, name, _same_bits)


@pytest.mark.parametrize("name", WITH_NORM)
def test_norms_are_global(name: str, four: list[dict[str, Any]], alone: dict[str, Any]) -> None:
    """Clipping by a norm agrees within rounding: sums of floats depend on their order."""
    _compare(four, alone, name, _close)


@pytest.mark.parametrize("name", EVERY)
def test_collectives_of_a_step(name: str, four: list[dict[str, Any]]) -> None:
    """Lion alone asks nobody; counts, norms and flags of all tensors are one all-reduce each."""
    expected = {**CASES, **WITH_NORM}[name].collectives
    assert [rank[name]["collectives"] for rank in four] == [expected] * 4


def test_cases_make_a_difference(alone: dict[str, Any]) -> None:
    """A skipped step is not counted, and a NaN that is not skipped is seen."""
    assert alone["skip"]["counters"] == [(27, 0)] * 2
    assert alone["propagate"]["tensors"][0]["weight"].isnan().sum() == 1
    assert any((part["weight"].numel() == 0) for part in alone["lion"]["tensors"]) is False


def test_empty_pieces_are_among_them(four: list[dict[str, Any]]) -> None:
    """The last rank has nothing of a parameter of one element."""
    assert four[3]["lion"]["tensors"][2]["weight"].numel() == 0


@pytest.mark.parametrize(("ranks", "steps"), [(2, 200), (4, 30)])
def test_real_training(ranks: int, steps: int) -> None:
    """Steps with the gradients of fully_shard give what one process gives."""
    full = fsdp_runs.trained(steps)
    for weights in on_ranks(ranks, fsdp_runs.trained, steps):
        for name, weight in weights.items():
            _same_bits(weight, full[name])


@pytest.fixture(scope="module")
def habits() -> list[dict[str, Any]]:
    """What else users do, on 2 ranks."""
    return on_ranks(2, fsdp_habits.habits)


@pytest.mark.parametrize("name", ["metrics", "averages", "versions", "scaler"])
def test_habits(name: str, habits: list[dict[str, Any]]) -> None:
    """Telemetry, averages, version counts, GradScaler: as on one process."""
    alone = getattr(fsdp_habits, name)()
    for rank in habits:
        torch.testing.assert_close(rank[name], alone, rtol=0, atol=0)


def test_raise_on_every_rank(habits: list[dict[str, Any]]) -> None:
    """One rank's NaN stops all of them before anything has changed."""
    (first, first_kept), (second, second_kept) = (rank["raising"] for rank in habits)
    assert first.startswith(
        "RuntimeError: gradients are not finite: 6 of 6 parameters, parameter 0"
    )
    assert "all of them on other ranks" in second
    assert first_kept
    assert second_kept


def test_compiled_step(habits: list[dict[str, Any]]) -> None:
    """One graph with the collectives in it gives the bits of the plain step."""
    assert [rank["compiled"] for rank in habits] == [True, True]


def test_state_is_cut_like_its_parameter(habits: list[dict[str, Any]]) -> None:
    """So checkpoints of shards find it."""
    assert [rank["placements"] for rank in habits] == [True, True]


def test_first_step_counts_alike_on_all_ranks() -> None:
    """With lr 0 and a gradient on one rank alone, all ranks count the step, and none waits."""
    assert on_ranks(2, fsdp_habits.counted_with_lr_0, timeout=20) == [[1, 0]] * 2

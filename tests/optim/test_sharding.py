"""What a step asks of sharded parameters, on 2 and 4 processes."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from liontool.optim import _sharding
from support import shards
from support.processes import on_ranks


@pytest.fixture(scope="module")
def four() -> list[dict[str, Any]]:
    """What all checks gave on each of 4 ranks."""
    return on_ranks(4, shards.on_four)


@pytest.fixture(scope="module")
def two() -> list[dict[str, Any]]:
    """What all checks gave on each of 2 ranks."""
    return on_ranks(2, shards.on_two)


def test_places_of_elements(four: list[dict[str, Any]]) -> None:
    """In every layout, uneven and empty pieces too, an element is where its number says."""
    assert len(four[0]["places"]) > 40
    for rank in four:
        wrong = [name for name, (at, value) in rank["places"].items() if not torch.equal(at, value)]
        assert not wrong


def test_places_count_each_element(four: list[dict[str, Any]]) -> None:
    """The places of all ranks together are those of the full tensor."""
    name = "(7, 3) ('S(0)',) on (4,)"
    together = torch.cat([rank["places"][name][0].flatten() for rank in four])
    assert torch.equal(together, torch.arange(21))


def test_layout_without_places(two: list[dict[str, Any]]) -> None:
    """A cut that no mesh explains, and pieces that are not where they belong, are refused."""
    strided, odd = two[0]["no_place"]
    assert strided.startswith("NotImplementedError: a parameter of shape (6,) has placements")
    assert odd.startswith("NotImplementedError: a parameter of shape (3,) has placements")
    assert 'use rounding="split" or "nearest"' in strided


def test_sums_count_replicas_once(four: list[dict[str, Any]]) -> None:
    """Every cut of a mesh gives the count of the full tensor, on each rank."""
    for rank in four:
        assert [int(count) for count in rank["sums"]["counts"]] == rank["sums"]["full"]
        assert all(count.dtype == torch.int64 for count in rank["sums"]["counts"])


def test_sums_are_one_all_reduce(four: list[dict[str, Any]]) -> None:
    """All parameters of a mesh share one collective, whatever their cuts are."""
    assert [rank["sums"]["calls"] for rank in four] == [1] * 4


def test_sums_of_floats_are_equal_on_all_ranks(four: list[dict[str, Any]]) -> None:
    """Replicas get the same bits, though their own values differ; plain tensors keep theirs."""
    plain = 3
    for rank in four:
        sums, first = rank["sums"]["reals"], four[0]["sums"]["reals"]
        noise = rank["sums"]["noise"]
        unsharded = (plain, len(sums) - 1)
        for i, value in enumerate(sums):
            assert torch.equal(value, noise[i] if i in unsharded else first[i])


def test_sums_on_a_part_of_the_world(four: list[dict[str, Any]]) -> None:
    """A pipeline stage sums its own parameters only."""
    for rank in four:
        counts, full = rank["sums_of_a_stage"]
        assert [int(count) for count in counts] == full


def test_flag_of_any_rank(four: list[dict[str, Any]]) -> None:
    """Whichever rank sets the flag, all see it; if none does, none does."""
    assert [rank["flags"] for rank in four] == [[True] * 4 + [False]] * 4


def test_gradients_are_cut_like_parameters(four: list[dict[str, Any]]) -> None:
    """Gradients that are replicated, cut otherwise or pending come out as the parameter's piece."""
    for rank in four:
        assert rank["gradients"] == dict.fromkeys(["same", "replicated", "other", "partial"], True)


def test_plain_gradient_of_a_sharded_parameter(two: list[dict[str, Any]]) -> None:
    """It is refused, with the way out."""
    message = two[0]["foreign_gradient"]
    assert message.startswith("ValueError: a parameter is a DTensor and its gradient a Tensor")
    assert "distribute_tensor(gradient" in message


def test_local_piece_shares_memory(two: list[dict[str, Any]]) -> None:
    """Writing to a local piece writes to the parameter."""
    assert [rank["memory_is_shared"] for rank in two] == [True, True]


def test_int16_that_is_to_be_gathered(two: list[dict[str, Any]]) -> None:
    """It becomes int32, with the same values, whole or in shards, and nothing else changes."""
    assert [rank["gathered"] for rank in two] == [True, True]
    assert _sharding.gatherable(torch.ones(2, dtype=torch.int16)).dtype == torch.int32


def test_compiles_to_one_graph(two: list[dict[str, Any]]) -> None:
    """Sums, flags and places can stand in a compiled step."""
    assert [rank["compiled"] for rank in two] == [True, True]


def test_plain_tensors_pass_through() -> None:
    """Without DTensors, everything is what was given."""
    params = [torch.ones(2, 3), torch.ones(())]
    values = [torch.tensor(1), torch.tensor(2)]
    assert _sharding.summed(values, params) == values
    assert _sharding.any_rank(values[0] > 0, params)
    assert _sharding.local(params[0]) is params[0]
    assert _sharding.like_param(params[0], params[0]) is params[0]
    assert _sharding.index(params[0]).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert _sharding.index(params[1]).tolist() == 0


def test_plain_tensors_import_no_dtensor() -> None:
    """Who shards nothing does not pay half a second for it."""
    code = (
        "import sys, torch; from liontool.optim import Lion, _sharding\n"
        "class Mine(torch.Tensor): pass\n"
        "for kind in (torch.Tensor, torch.nn.Parameter, Mine):\n"
        "    param = torch.ones(2).as_subclass(kind)\n"
        "    _sharding.summed([param], [param]); _sharding.local(param); _sharding.index(param)\n"
        "assert 'torch.distributed.tensor' not in sys.modules\n"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_failure_of_a_rank_is_told() -> None:
    """The tests' own processes hand back the traceback, and nobody waits for the dead."""
    with pytest.raises(AssertionError, match=r"(?s)rank 1 failed.*LookupError: lost"):
        on_ranks(2, shards.fails_on_rank_1)


def test_all_ranks_take_one_path(two: list[dict[str, Any]]) -> None:
    """A rank that holds a whole weight counts with those that hold nothing, and nobody waits."""
    assert [float(rank["lone_row"]) for rank in two] == [0.75, 0.75]

"""Tensors by layer."""

from __future__ import annotations

import pytest

from liontool.page.layers import POSITIONS, by_layer
from support.page_data import network, statistics, tensor, values


def test_a_grid_for_each_kind() -> None:
    """Rows are layers, columns what stands after the number; the rest is outside."""
    found = by_layer(network(3, ["attn.weight", "mlp.weight"]))
    assert found.kinds == ("weight", "exp_avg", "exp_avg_sq")
    grid = found.grids[0]
    assert (grid.kind, grid.stack, grid.rows) == ("weight", "model.layers", ("0", "1", "2"))
    assert grid.columns == ("attn.weight", "mlp.weight")
    assert grid.cells[1, 0].rms == pytest.approx(0.004)
    assert [one.name for one in found.outside] == ["model.embed.weight"]
    assert set(found.outside[0].kinds) == {"weight", "exp_avg", "exp_avg_sq"}
    assert found.models == ("",)
    assert [name for name, _ in found.rows("exp_avg", "")] == ["layers 0", "layers 1", "layers 2"]


def test_many_layers_share_rows() -> None:
    """Neighbours are put together, none is left out."""
    found = by_layer(network(100, ["w"]))
    assert found.grids[0].rows[:2] == ("0-2", "3-5")
    assert found.grids[0].rows[-1] == "99"
    assert sum(one.count for one in found.grids[0].totals) == 100 * 100


def test_many_columns_are_counted() -> None:
    """What is beyond the last column is counted in `hidden` and in the totals."""
    grid = by_layer(network(1, [f"part_{index}.w" for index in range(50)])).grids[0]
    assert (len(grid.columns), grid.hidden) == (32, 18)
    assert grid.totals[0].count == 50 * 100


def test_experts_share_a_column() -> None:
    """Further numbers in a name are folded."""
    grid = by_layer(network(2, [f"experts.{index}.w" for index in range(8)])).grids[0]
    assert grid.columns == ("experts.{}.w",)
    assert grid.cells[0, 0].count == 800


def test_positions_stand_side_by_side() -> None:
    """Parameters without names fill rows of sixteen."""
    found = by_layer(statistics(tensor(str(index), "exp_avg") for index in range(20)))
    grid = found.grids[0]
    assert (grid.stack, grid.rows) == (POSITIONS, ("0", "16"))
    assert grid.columns == tuple(f"+{index}" for index in range(16))
    assert (1, 3) in grid.cells
    assert (1, 4) not in grid.cells


def test_huge_numbers_are_names() -> None:
    """A part of a name with a thousand digits is no layer."""
    found = by_layer(statistics([tensor(f"a.{'9' * 5000}.w", found=values())]))
    assert (found.grids, len(found.outside)) == ((), 1)


def test_many_stacks_and_parameters_are_counted() -> None:
    """Stacks and outside parameters beyond the first are counted."""
    stacks = [tensor(f"stack_{index}.0.w") for index in range(9)]
    outside = [tensor(f"name_{index}") for index in range(90)]
    found = by_layer(statistics([*stacks, *outside]))
    assert (len(found.grids), found.hidden_stacks) == (6, 3)
    assert (len(found.outside), found.hidden_outside) == (40, 50)


def test_models_stay_apart() -> None:
    """Of two models with the same names each has its own grid, rows and outside parameters."""
    kinds = ("weight", "exp_avg")
    found = by_layer(
        statistics(
            tensor(name, kind, values(rms), model=model)
            for model, rms in (("G", 0.8), ("D", 8e5))
            for name in ("h.0.w", "w")
            for kind in kinds
        )
    )
    cells = [(grid.title, grid.kind, grid.cells[0, 0].rms) for grid in found.grids]
    assert cells == [(f"{m}: h", k, r) for m, r in (("G", 0.8), ("D", 8e5)) for k in kinds]
    assert [(one.title, one.kinds["exp_avg"].rms) for one in found.outside] == [
        ("G: w", 0.8),
        ("D: w", 8e5),
    ]
    assert found.models == ("G", "D")
    assert [(n, one.rms) for n, one in found.rows("exp_avg", "D")] == [("h 0", 8e5)]

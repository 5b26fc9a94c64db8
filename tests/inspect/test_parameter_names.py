"""Parameters of several models and optimizers are told apart, positions get certain names."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from time import process_time
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from liontool.inspect.matching import MatchError, match
from liontool.inspect.statistics import TensorStatistics, statistics


def trained(
    sizes: tuple[int, ...] = (4, 5, 3), *, named: bool = False, seed: int = 0
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """A stack of linear layers and its AdamW, with two groups, after a step."""
    torch.manual_seed(seed)
    layers = pairwise(sizes)
    model = torch.nn.Sequential(*(torch.nn.Linear(i, o) for i, o in layers))
    pairs = list(model.named_parameters())
    wide, flat = ([(n, p) for n, p in pairs if (p.dim() > 1) == is_wide] for is_wide in (1, 0))
    groups = [{"params": g if named else [p for _, p in g]} for g in (wide, flat)]
    optimizer = torch.optim.AdamW(groups)
    model(torch.ones(1, sizes[0])).sum().backward()
    optimizer.step()
    return model, optimizer


def saved(path: Path, **parts: Any) -> Path:
    """A file with the states of these parts."""
    torch.save({name: part.state_dict() for name, part in parts.items()}, path)
    return path


def moments(path: Path) -> list[tuple[str, str | None, bool]]:
    """Model and parameter of each first moment, and whether the name is inferred."""
    return [(t.model, t.parameter, t.inferred) for t in found(path) if t.kind == "exp_avg"]


def found(path: Path) -> tuple[TensorStatistics, ...]:
    return statistics(path).tensors


def test_two_models_with_the_same_names(tmp_path: Path) -> None:
    """Weights and moments of either network stay apart, though all names are the same."""
    (g, opt_g), (d, opt_d) = trained(named=True), trained(named=True, seed=1)
    path = saved(tmp_path / "gan.pt", G=g, D=d, optG=opt_g, optD=opt_d)
    assert {t.model for t in found(path) if t.role == "weight"} == {"G", "D"}
    assert {model for model, _, _ in moments(path)} == {"optG", "optD"}
    keys = [(t.model, t.parameter, t.kind) for t in found(path)]
    assert len(keys) == len(set(keys))


def test_two_models_of_other_shapes(tmp_path: Path) -> None:
    """Moments by position belong to the one network that they fit."""
    (g, opt_g), (d, opt_d) = trained((4, 5, 3)), trained((3, 6, 1))
    path = saved(tmp_path / "gan.pt", G=g, D=d, optG=opt_g, optD=opt_d)
    names = ["0.weight", "1.weight", "0.bias", "1.bias"]
    assert moments(path) == [(model, name, True) for model in ("G", "D") for name in names]


def test_average_beside_the_model(tmp_path: Path) -> None:
    """Whose moments they are is not told, but their names are."""
    (model, optimizer), (ema, _) = trained(), trained(seed=1)
    path = saved(tmp_path / "run.pt", model=model, ema=ema, optimizer=optimizer)
    assert {one[0] for one in moments(path)} == {"optimizer"}
    assert moments(path)[2] == ("optimizer", "0.bias", True)


@pytest.mark.parametrize("named", [True, False], ids=["names", "positions"])
def test_two_optimizers_without_weights(tmp_path: Path, named: bool) -> None:
    """Of two optimizers each has its own parameters, by name or by position."""
    first, second = trained(named=named)[1], trained(named=named, seed=1)[1]
    path = saved(tmp_path / "both.pt", first=first, second=second)
    name = "0.weight" if named else "0"
    assert moments(path)[0::4] == [("first", name, False), ("second", name, False)]


def test_two_optimizers_of_one_model(tmp_path: Path) -> None:
    """Names that one optimizer alone has belong to the one model."""
    model, _ = trained()
    parts = [model[0].named_parameters(), model[1].named_parameters()]
    every = [
        torch.optim.AdamW([(f"{index}.{name}", p) for name, p in part])
        for index, part in enumerate(parts)
    ]
    for one in every:
        one.step()
    path = saved(tmp_path / "run.pt", model=model, first=every[0], second=every[1])
    assert [one[:2] for one in moments(path)] == [
        ("", "0.weight"), ("", "0.bias"), ("", "1.weight"), ("", "1.bias")
    ]  # fmt: skip


def test_two_optimizers_that_claim_one_model(tmp_path: Path) -> None:
    """One weight cannot have two optimizers: then neither is its own."""
    (model, first), (_, second) = trained(named=True), trained(named=True)
    path = saved(tmp_path / "run.pt", model=model, first=first, second=second)
    assert {one[0] for one in moments(path)} == {"first", "second"}


def test_uncertain_positions_stay(tmp_path: Path) -> None:
    """Groups that share all shapes could be dealt out in two ways, so that nothing is."""
    model = torch.nn.Sequential(*(torch.nn.Linear(4, 4) for _ in range(4)))
    groups = [{"params": layer.weight} for layer in model]
    optimizer = torch.optim.AdamW(groups)
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    path = saved(tmp_path / "run.pt", model=model, optimizer=optimizer)
    assert moments(path) == [("", str(index), False) for index in range(4)]


def test_positions_that_are_names_of_weights(tmp_path: Path) -> None:
    """A weight called 0 and the parameter at position 0 are not the same one."""
    model = torch.nn.ParameterList(torch.ones(2) for _ in range(3))
    optimizer = torch.optim.AdamW([model[2], model[1]])
    model[2].grad, model[1].grad = torch.ones(2), torch.ones(2)
    optimizer.step()
    path = saved(tmp_path / "run.pt", model=model, optimizer=optimizer)
    assert moments(path) == [("optimizer", "0", False), ("optimizer", "1", False)]


def test_filters_change_no_names(tmp_path: Path) -> None:
    """Names come from the whole file, also where a part of it is read."""
    model, optimizer = trained()
    path = saved(tmp_path / "run.pt", model=model, optimizer=optimizer)
    (one,) = statistics(path, filters=["state.2.exp_avg"]).tensors
    assert (one.name, one.parameter, one.inferred) == ("state.2.exp_avg", "0.bias", True)


def test_shards_are_one_model(tmp_path: Path) -> None:
    """Weights in several files of a folder are one model; another file with the same is another."""
    weights = {f"h.{i}.w": torch.ones(2) for i in range(4)}
    halves = [dict(list(weights.items())[:2]), dict(list(weights.items())[2:])]
    for index, half in enumerate(halves):
        save_file(half, tmp_path / f"model-{index}.safetensors")
    assert {t.model for t in found(tmp_path)} == {""}
    torch.save(weights, tmp_path / "pytorch_model.bin")
    places = {"pytorch_model.bin", "model-0.safetensors", "model-1.safetensors"}
    assert {t.model for t in found(tmp_path)} == places


def test_many_groups_end_soon() -> None:
    """A group for each of thousands of parameters of one shape is given up in a moment."""
    start = process_time()
    with pytest.raises(MatchError, match="too many ways to deal the names out to the groups"):
        match([[(2,)]] * 4000, [(f"w{index}", (2,)) for index in range(4000)], ordered=True)
    assert process_time() - start < 5

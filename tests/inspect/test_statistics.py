"""`statistics`: what it finds in runs whose values are known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from liontool.checkpoint import frameworks
from liontool.checkpoint.source import open_source
from liontool.inspect.statistics import Statistics, statistics
from liontool.measure.evidence import evidence, update_rms


def rms(*tensors: torch.Tensor) -> float:
    """Root mean square of all elements together."""
    return math.sqrt(torch.cat([t.double().flatten() for t in tensors]).square().mean())


@pytest.fixture(scope="module")
def found(run: Path) -> Statistics:
    """Those of the small run."""
    return statistics(run)


def test_kinds(run: Path, found: Statistics) -> None:
    """Weights and each state are summed up by kind; the tied weight counts once."""
    state = torch.load(run)
    weights = {name: w for name, w in state["model"].items() if name != "head.weight"}
    assert found.kinds["weight"].count == 260
    assert found.kinds["weight"].rms == pytest.approx(rms(*weights.values()), rel=1e-12)
    firsts = [slot["exp_avg"] for slot in state["optimizer"]["state"].values()]
    assert found.kinds["exp_avg"].rms == pytest.approx(rms(*firsts), rel=1e-12)
    assert found.bytes == 4 * (3 * 260 + 23)


def test_tensors(run: Path, found: Statistics) -> None:
    """Each tensor has its place and its values, those that are shared too."""
    tensors = {tensor.name: tensor for tensor in found.tensors}
    moment = tensors["state.h.3.bias.exp_avg"]
    assert (moment.kind, moment.parameter, moment.group) == ("exp_avg", "h.3.bias", 1)
    weight = tensors["h.3.bias"]
    assert (weight.kind, weight.parameter, weight.group) == ("weight", "h.3.bias", 1)
    head = tensors["head.weight"]
    assert head.shares == "wte.weight"
    assert head.values == tensors["wte.weight"].values


def test_groups(run: Path, found: Statistics) -> None:
    """Groups have their kinds, and the updates that conversions go by."""
    assert [group.kinds["weight"].count for group in found.groups] == [40 + 11 * 16, 44]
    _, checkpoint = frameworks.find(open_source(run))
    expected = evidence(checkpoint.optimizers[0], (0.9, 0.99), lambda _: None)
    for group, items in zip(found.groups, expected, strict=True):
        assert group.updates is not None
        assert group.updates.tensors == len(items)
        telling = [item for item in items if item.is_telling]
        assert group.updates.telling == len(telling)
        assert group.updates.update_rms == pytest.approx(update_rms(telling), rel=1e-6)


def test_filter(run: Path) -> None:
    """Only what was asked for is read; half of the moments say nothing of updates."""
    part = statistics(run, filters=["state.*.exp_avg"])
    assert (part.matched, part.total) == (23, 93)
    assert part.kinds.keys() == {"exp_avg"}
    assert [group.updates for group in part.groups] == [None, None]
    assert part.bytes == 4 * 260


def test_progress(run: Path) -> None:
    """Progress is told in bytes, up to all of them."""
    seen: list[tuple[int, int]] = []
    total = statistics(run, progress=lambda done, all: seen.append((done, all))).bytes
    assert seen[-1] == (total, total)


def test_lion(tmp_path: Path) -> None:
    """A Lion's momentum has its RMS and its share of dead elements; it tells no updates."""
    momentum = torch.tensor([[0.5, 0.0], [-0.5, 0.0]])
    group = {"lr": 1e-4, "betas": (0.9, 0.99), "weight_decay": 0.0, "params": [0]}
    torch.save({"state": {0: {"exp_avg": momentum}}, "param_groups": [group]}, tmp_path / "l.pt")
    (found,) = statistics(tmp_path / "l.pt").groups
    assert found.updates is None
    assert found.kinds["exp_avg"].rms == pytest.approx(math.sqrt(1 / 8))
    assert found.kinds["exp_avg"].zero_share == 0.5


def test_not_finite(tmp_path: Path) -> None:
    """NaN and infinities are counted, and everything else is about the rest."""
    torch.save({"w": torch.tensor([1.0, math.nan, -math.inf, 3.0])}, tmp_path / "w.pt")
    (tensor,) = statistics(tmp_path / "w.pt").tensors
    assert (tensor.values.nan, tensor.values.infinite, tensor.values.max) == (1, 1, 3.0)
    assert tensor.values.mean == 2.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_moments_of_every_type(tmp_path: Path, dtype: torch.dtype) -> None:
    """Updates are found for moments of every type, as conversions find them."""
    weight = torch.nn.Parameter(torch.randn(20, 30, dtype=dtype))
    optimizer = torch.optim.AdamW([weight])
    for _ in range(3):
        weight.grad = torch.randn_like(weight)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "o.pt")
    _, checkpoint = frameworks.find(open_source(tmp_path / "o.pt"))
    ((expected,),) = evidence(checkpoint.optimizers[0], (0.9, 0.99), lambda _: None)
    (group,) = statistics(tmp_path / "o.pt").groups
    assert group.updates is not None
    assert group.updates.update_rms == pytest.approx(expected.update_rms, rel=1e-6)
    assert group.updates.stale == pytest.approx(expected.stale)


@pytest.mark.parametrize("wide", ["exp_avg", "exp_avg_sq"])
def test_moments_of_two_types(tmp_path: Path, wide: str) -> None:
    """Moments may differ in their types."""
    state = {"step": torch.tensor(200.0), "exp_avg": torch.ones(9), "exp_avg_sq": torch.ones(9)}
    state[wide] = state[wide].double()
    group = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    saved = {"state": {0: state}, "param_groups": [{**group, "params": [0]}]}
    torch.save(saved, tmp_path / "o.pt")
    (found,) = statistics(tmp_path / "o.pt").groups
    assert found.updates is not None
    assert found.updates.update_rms == pytest.approx(math.sqrt(1 - 0.999**200), rel=1e-5)


def test_json(found: Statistics) -> None:
    """Statistics are a JSON document with the version of the schema."""
    document = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert document["schema"] == 2
    assert document["groups"][0]["kinds"]["weight"]["count"] == 216


def test_stale_counts_all_tensors(tmp_path: Path) -> None:
    """What says nothing of updates for being still is what a share of still elements is about."""
    params = [torch.nn.Parameter(torch.ones(300)), torch.nn.Parameter(torch.ones(100))]
    optimizer = torch.optim.AdamW(params)
    for _ in range(3):
        params[0].grad, params[1].grad = torch.ones(300), torch.zeros(100)
        optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "a.pt")
    (group,) = statistics(tmp_path / "a.pt").groups
    assert group.updates is not None
    assert (group.updates.tensors, group.updates.telling) == (2, 1)
    assert group.updates.zero == pytest.approx(0.25)
    assert group.updates.stale == pytest.approx(0.25)


def test_a_weight_of_two_optimizers(tmp_path: Path) -> None:
    """A weight that several optimizers could mean is counted for the first."""
    param = torch.nn.Parameter(torch.ones(3))
    optimizers = [torch.optim.AdamW([param]) for _ in range(2)]
    param.grad = torch.ones(3)
    for optimizer in optimizers:
        optimizer.step()
    a, b = (optimizer.state_dict() for optimizer in optimizers)
    torch.save({"model": {"w": param.data}, "a": a, "b": b}, tmp_path / "a.pt")
    (weight,) = (one for one in statistics(tmp_path / "a.pt").tensors if one.role == "weight")
    assert (weight.optimizer, weight.group) == (0, 0)

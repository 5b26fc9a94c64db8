"""Whatever the options: a copy, a pickle or a state dict of either Lion goes on as it would."""

from __future__ import annotations

import copy
import inspect
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from support.lions import CASES, KINDS, configurations, parameters, plain, same, snapshot, train

Case = tuple[str, str]


@pytest.fixture(params=CASES, ids="-".join)
def trained(request: pytest.FixtureRequest) -> Any:
    """Either optimizer in each configuration, in the middle of things."""
    kind, name = request.param
    optimizer = KINDS[kind](_params(), **{"lr": 0.01, **configurations(KINDS[kind])[name]})
    optimizer.param_groups[0].update(horizon=10.0, rounding_seed=7)
    train(optimizer)
    return optimizer


def _params() -> list[Parameter]:
    """One parameter of each dtype that state could be lost for."""
    generator = torch.Generator().manual_seed(0)
    dtypes = (torch.float32, torch.bfloat16, torch.float64)
    return [Parameter(torch.rand(3, 5, generator=generator).to(dtype)) for dtype in dtypes]


def _goes_on_alike(first: Any, second: Any) -> bool:
    """Whether two optimizers are equal in bits, and still are after two more steps."""
    now = same(snapshot(first), snapshot(second))
    train(first, 2, seed=9)
    train(second, 2, seed=9)
    return now and same(snapshot(first), snapshot(second))


def _options(optimizer: Any) -> dict[str, Any]:
    group = optimizer.param_groups[0]
    return {name: plain(value) for name, value in group.items() if name != "params"}


def test_deepcopy(trained: Any) -> None:
    """A copied optimizer, with its own weights, loses nothing."""
    twin = copy.deepcopy(trained)
    assert _options(twin) == _options(trained)
    assert _goes_on_alike(trained, twin)


def test_pickle(trained: Any) -> None:
    """A pickled one neither."""
    twin = pickle.loads(pickle.dumps(trained))
    assert _options(twin) == _options(trained)
    assert _goes_on_alike(trained, twin)


def test_state_dict(trained: Any) -> None:
    """A state dict in a weights-only file neither, and it wins over other options."""
    file = BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    weights = [Parameter(param.detach().clone()) for param in parameters(trained)]
    twin = type(trained)(weights, lr=1.0, betas=(0.5, 0.5), weight_decay=1.0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert _options(twin) == _options(trained)
    assert _goes_on_alike(trained, twin)


def test_state_dict_is_plain(trained: Any) -> None:
    """State is tensors of the parameter's shape; group values are plain, the keys always those."""
    saved = trained.state_dict()
    for index, param in enumerate(parameters(trained)):
        for value in saved["state"][index].values():
            assert isinstance(value, Tensor)
            assert value.shape == param.shape
    group = saved["param_groups"][0]
    plain = (int, float, bool, str, tuple, list, Tensor, torch.dtype, type(None))
    assert all(isinstance(value, plain) for value in group.values())
    assert group.keys() == type(trained)([Parameter(torch.ones(1))]).param_groups[0].keys()


def test_state_dict_is_not_changed_by_load(trained: Any) -> None:
    """What was given to `load_state_dict` still has its keys and values afterwards."""
    given = trained.state_dict()
    given["param_groups"][0]["betas"] = [0.5, 0.6]
    before = plain(given)
    type(trained)(_params()).load_state_dict(given)
    assert plain(given) == before


def test_loaded_state_is_not_shared(trained: Any) -> None:
    """Steps of the one that loaded leave counters of the one that saved alone."""
    twin = type(trained)(_params())
    twin.load_state_dict(copy.deepcopy(trained.state_dict()))
    before = snapshot(trained)
    train(twin)
    assert same(snapshot(trained), before)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_all_options_are_in_the_groups(kind: Any) -> None:
    """Nothing that matters lives on the object; `use_triton` is only another name."""
    optimizer = kind(_params(), lr=0.01)
    signature = set(inspect.signature(kind).parameters) - {"params", "use_triton"}
    own = {"params", "horizon", "reference_lr", "step", "micro_step", "rounding_seed"}
    assert set(optimizer.param_groups[0]) == signature | own
    assert set(vars(optimizer)) == set(vars(torch.optim.SGD(_params())))
    assert optimizer.param_groups[0]["reference_lr"] == 0.01


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_pickles_of_older_versions(kind: Any) -> None:
    """Keys that an older version did not write are those of the signature."""
    optimizer = kind(_params(), lr=0.01, weight_decay=0.1)
    train(optimizer)
    state = copy.deepcopy(optimizer.__getstate__())
    kept = ("params", "lr", "betas", "weight_decay", "step", "reference_lr", "horizon")
    for options in (state["defaults"], *state["param_groups"]):
        for name in set(options) - set(kept):
            del options[name]
    twin = kind.__new__(kind)
    twin.__setstate__(state)
    assert _options(twin) == _options(optimizer)
    assert _goes_on_alike(optimizer, twin)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_subclass_with_arguments_of_its_own(kind: Any) -> None:
    """A copy of one has no more in its groups than the original."""

    class Own(kind):  # type: ignore[misc]
        def __init__(self, params: Any, extra: int, **options: Any) -> None:
            super().__init__(params, **options)
            self.extra = extra

    optimizer = Own(_params(), 3, lr=0.01)
    twin = copy.deepcopy(optimizer)
    assert _options(twin) == _options(optimizer)
    assert twin.defaults == optimizer.defaults


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_saved_file_needs_no_class(kind: Any, tmp_path: Path) -> None:
    """State dicts hold tensors and plain values only."""
    optimizer = kind(_params(), lr=0.01)
    train(optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "lion.pt")
    loaded = torch.load(tmp_path / "lion.pt", weights_only=True)
    assert loaded["param_groups"][0].keys() == optimizer.state_dict()["param_groups"][0].keys()

"""What torch and its users expect of any optimizer, for both Lions."""

from __future__ import annotations

import copy
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import Parameter

from liontool.optim import Lion, LionSF
from liontool.optim._base import LionBase


@pytest.fixture(params=[Lion, LionSF], ids=["lion", "lion_sf"])
def kind(request: pytest.FixtureRequest) -> type[LionBase]:
    """Either optimizer."""
    return request.param


def _model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))


def _give_gradients(params: list[Parameter], seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator).to(param.dtype)


def _train(optimizer: torch.optim.Optimizer, steps: int = 3) -> list[Tensor]:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for step in range(steps):
        _give_gradients(params, step)
        optimizer.step()
    return [param.detach().clone() for param in params]


OPTIONS: dict[str, Any] = {
    "lr": 1e-2, "betas": (0.8, 0.9), "weight_decay": 0.3, "maximize": True,
    "decoupled_weight_decay": True,
}  # fmt: skip


def test_deepcopy_goes_on_alike(kind: Any) -> None:
    """A copied optimizer keeps every option, its state and its count."""
    optimizer = kind(_model().parameters(), **OPTIONS)
    _train(optimizer)
    twin = copy.deepcopy(optimizer)
    assert all(map(torch.equal, _train(optimizer), _train(twin)))
    assert twin.param_groups[0]["step"] == 6


def test_pickle_goes_on_alike(kind: Any) -> None:
    """A pickled optimizer keeps every option, its state and its count."""
    optimizer = kind(_model().parameters(), **OPTIONS)
    _train(optimizer)
    twin = pickle.loads(pickle.dumps(optimizer))
    assert all(map(torch.equal, _train(optimizer), _train(twin)))


def test_state_dict_goes_on_alike(kind: Any) -> None:
    """A state dict goes through a weights-only file and wins over new options."""
    first, second = _model(), _model()
    optimizer = kind(first.parameters(), **OPTIONS)
    optimizer.param_groups[0]["horizon"] = 10.0
    _train(optimizer)
    file = BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    second.load_state_dict(first.state_dict())
    twin = kind(second.parameters(), lr=1.0)
    twin.load_state_dict(torch.load(file, weights_only=True))
    assert all(map(torch.equal, _train(optimizer), _train(twin)))
    assert twin.param_groups[0]["horizon"] == 10.0


def test_state_dict_is_not_changed_by_load(kind: Any) -> None:
    """What was given to `load_state_dict` still has its keys and values afterwards."""
    optimizer = kind(_model().parameters())
    _train(optimizer)
    saved = optimizer.state_dict()
    saved["param_groups"][0]["betas"] = [0.5, 0.6]
    keys = set(saved["param_groups"][0])
    kind(_model().parameters()).load_state_dict(saved)
    assert saved["param_groups"][0]["betas"] == [0.5, 0.6]
    assert set(saved["param_groups"][0]) == keys


def test_all_options_are_in_the_groups(kind: Any) -> None:
    """Nothing that matters lives on the object."""
    optimizer = kind(_model().parameters(), **OPTIONS)
    known = set(vars(torch.optim.SGD(_model().parameters())))
    assert set(vars(optimizer)) == known
    assert optimizer.param_groups[0]["reference_lr"] == 1e-2


def test_betas_by_position(kind: Any) -> None:
    """`betas` may follow `lr` without its name."""
    assert kind(_model().parameters(), 1e-3, (0.95, 0.98)).param_groups[0]["betas"] == (0.95, 0.98)


def test_closure(kind: Any) -> None:
    """The closure runs with gradients enabled and its loss is returned."""
    model = _model()
    optimizer = kind(model.parameters())

    def closure() -> float:
        loss = model(torch.ones(4, 3)).square().sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) > 0
    assert len(optimizer.state) == 4


def test_param_without_gradient_stays(kind: Any) -> None:
    """It is not moved, decayed or given state; a group without gradients counts no step."""
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = kind([{"params": [a]}, {"params": [b]}], lr=0.1, weight_decay=0.5)
    _give_gradients([a])
    optimizer.step()
    assert b.tolist() == [1.0, 1.0]
    assert list(optimizer.state) == [a]
    assert [int(group["step"]) for group in optimizer.param_groups] == [1, 0]


def test_empty_group(kind: Any) -> None:
    """A group may have no parameters."""
    a = Parameter(torch.ones(2))
    optimizer = kind([{"params": []}, {"params": [a]}], lr=0.1)
    _train(optimizer, 1)
    assert optimizer.state_dict()["param_groups"][0]["params"] == []


@pytest.mark.parametrize("shape", [(), (0,), (0, 3)], ids=str)
def test_scalar_and_empty_tensors(kind: Any, shape: tuple[int, ...]) -> None:
    """0-d and empty parameters step like any others."""
    param = Parameter(torch.ones(shape))
    optimizer = kind([param], lr=0.5)
    param.grad = torch.ones(shape)
    optimizer.step()
    assert torch.equal(param.detach(), torch.full(shape, 0.5))


def test_lr_tensor(kind: Any) -> None:
    """A tensor lr does what the same float does, read anew in each step."""
    by_float, by_tensor = kind(_model().parameters(), lr=0.25), kind(
        _model().parameters(), lr=torch.tensor(0.25)
    )  # fmt: skip
    _train(by_float, 2)
    _train(by_tensor, 2)
    by_float.param_groups[0]["lr"] = 0.125
    by_tensor.param_groups[0]["lr"].fill_(0.125)
    assert all(map(torch.equal, _train(by_float), _train(by_tensor)))


def test_lr_zero_changes_no_weight_but_counts(kind: Any) -> None:
    """A warm-up that begins with lr 0 fills the momentum and counts."""
    param = Parameter(torch.ones(3))
    optimizer = kind([param], lr=0.0, weight_decay=0.5)
    _give_gradients([param])
    optimizer.step()
    assert param.tolist() == [1.0] * 3
    assert optimizer.state[param]["exp_avg"].abs().sum() > 0
    assert optimizer.param_groups[0]["step"] == 1


def test_zero_gradient_on_fresh_state_changes_nothing(kind: Any) -> None:
    """Without decay, a zero gradient leaves the weights equal in bits."""
    param = Parameter(torch.randn(5))
    before = param.detach().clone()
    optimizer = kind([param], lr=0.1)
    param.grad = torch.zeros(5)
    optimizer.step()
    assert torch.equal(param.detach(), before)


def test_first_step_without_lr_and_gradient_only_creates_state(kind: Any) -> None:
    """So torch.distributed.checkpoint makes state; it is no step, the same again is one."""
    param = Parameter(torch.ones(3))
    optimizer = kind([param], lr=0.0, weight_decay=0.5)
    param.grad = torch.zeros(3)
    optimizer.step()
    assert optimizer.state[param]["exp_avg"].tolist() == [0.0] * 3
    assert optimizer.param_groups[0]["step"] == 0
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 1


def test_distributed_checkpoint_state_dict(kind: Any) -> None:
    """torch.distributed.checkpoint's get and set, plain and flattened, lose nothing."""
    from torch.distributed.checkpoint import state_dict as dcp

    for flatten in (False, True):
        first, second = _model(), _model()
        optimizer, twin = kind(first.parameters(), **OPTIONS), kind(second.parameters())
        _train(optimizer)
        options = dcp.StateDictOptions(flatten_optimizer_state_dict=flatten)
        saved = copy.deepcopy(dcp.get_optimizer_state_dict(first, optimizer, options=options))
        dcp.set_optimizer_state_dict(second, twin, saved, options=options)
        second.load_state_dict(first.state_dict())
        assert twin.param_groups[0]["step"] == 3
        assert all(map(torch.equal, _train(optimizer), _train(twin)))


def test_init_state_creates_all_state(kind: Any) -> None:
    """Every parameter that requires a gradient gets zeros, what is there stays."""
    a, b, frozen = (Parameter(torch.ones(2), requires_grad=r) for r in (True, True, False))
    optimizer = kind([a, b, frozen])
    _give_gradients([a])
    optimizer.step()
    before = optimizer.state[a]["exp_avg"].clone()
    optimizer.init_state()
    assert torch.equal(optimizer.state[a]["exp_avg"], before)
    assert optimizer.state[b]["exp_avg"].tolist() == [0.0, 0.0]
    assert frozen not in optimizer.state


def test_state_is_one_momentum(kind: Any) -> None:
    """The state of a parameter is `exp_avg`, in its dtype and shape."""
    param = Parameter(torch.ones(2, 3, dtype=torch.bfloat16))
    optimizer = kind([param])
    _train(optimizer, 1)
    assert set(optimizer.state[param]) == {"exp_avg"}
    assert optimizer.state[param]["exp_avg"].dtype == torch.bfloat16


def test_sparse_gradients_are_refused(kind: Any) -> None:
    """And nothing has changed when the error comes."""
    dense, param = Parameter(torch.ones(2)), Parameter(torch.ones(4, 2))
    dense.grad = torch.ones(2)
    param.grad = torch.ones(4, 2).to_sparse()
    optimizer = kind([dense, param], lr=0.1)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        optimizer.step()
    assert dense.tolist() == [1.0, 1.0]


def test_complex(kind: Any) -> None:
    """A complex parameter moves as the pair of its parts."""
    values = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    whole, parts = Parameter(torch.view_as_complex(values.clone())), Parameter(values.clone())
    for param in (whole, parts):
        optimizer = kind([param], lr=0.1, weight_decay=0.1)
        for seed in range(3):
            grad = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(seed))
            param.grad = torch.view_as_complex(grad) if param is whole else grad
            optimizer.step()
    assert torch.equal(torch.view_as_real(whole.detach()), parts.detach())


def test_layout_does_not_matter(kind: Any) -> None:
    """Transposed weights, expanded gradients: the numbers are those of contiguous ones."""
    grad = torch.randn(5, 1, generator=torch.Generator().manual_seed(0))
    plain, turned = Parameter(torch.ones(5, 3)), Parameter(torch.ones(3, 5).t())
    plain.grad, turned.grad = grad.expand(5, 3).contiguous(), grad.expand(5, 3)
    optimizers = [kind([param], lr=0.1, weight_decay=0.1) for param in (plain, turned)]
    for optimizer in optimizers * 3:
        optimizer.step()
    assert torch.equal(plain.detach(), turned.detach())
    assert optimizers[1].state[turned]["exp_avg"].stride() == (1, 5)


def test_maximize_goes_the_other_way_and_leaves_the_gradient(kind: Any) -> None:
    """Upwards is downwards with the opposite gradient; `.grad` is never written."""
    up, down = Parameter(torch.ones(7)), Parameter(torch.ones(7))
    _give_gradients([up])
    down.grad = -up.grad
    before = up.grad.clone()
    for param, maximize in ((up, True), (down, False)):
        optimizer = kind([param], lr=0.1, maximize=maximize)
        optimizer.step()
        optimizer.step()
    assert torch.equal(up.detach(), down.detach())
    assert torch.equal(up.grad, before)


def test_add_param_group_starts_its_own_count(kind: Any) -> None:
    """A group that comes later counts from its own beginning, with options of its own."""
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = kind([a], lr=0.1)
    _train(optimizer, 2)
    optimizer.add_param_group({"params": b, "lr": 0.2})
    _train(optimizer, 1)
    assert [int(group["step"]) for group in optimizer.param_groups] == [3, 1]
    assert optimizer.param_groups[1]["reference_lr"] == 0.2


def test_groups_of_another_optimizer_share_no_count(kind: Any) -> None:
    """Groups handed from one optimizer to the next do not count twice."""
    first = kind([Parameter(torch.ones(2))])
    second = kind([dict(group) for group in first.param_groups])
    _train(second, 1)
    assert first.param_groups[0]["step"] == 0


def test_named_parameters(kind: Any) -> None:
    """Names are kept in the groups and in the state dict."""
    optimizer = kind(_model().named_parameters())
    names = ["0.weight", "0.bias", "1.weight", "1.bias"]
    assert optimizer.state_dict()["param_groups"][0]["param_names"] == names
    _train(optimizer, 1)


def test_repr_shows_the_options(kind: Any) -> None:
    """An optimizer can be printed."""
    text = repr(kind(_model().parameters(), lr=0.125))
    assert text.startswith(kind.__name__)
    assert "lr: 0.125" in text
    assert "horizon: None" in text


def test_horizon_is_a_constant_of_the_group(kind: Any) -> None:
    """The first momentum after horizon 10 is 10/11 seed and 1/11 gradient."""
    param = Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = kind([{"params": [param], "horizon": 10.0}])
    optimizer.init_state()
    seed = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    optimizer.state[param]["exp_avg"].copy_(seed)
    _give_gradients([param])
    optimizer.step()
    expected = (10 * seed + param.grad) / 11
    torch.testing.assert_close(optimizer.state[param]["exp_avg"], expected)
    assert optimizer.param_groups[0]["horizon"] == 10.0


def test_first_step_after_a_horizon_takes_the_mixed_sign() -> None:
    """The horizon does not touch the update: sign(.9 m + .1 g)."""
    param = Parameter(torch.zeros(64))
    optimizer = Lion([{"params": [param], "horizon": 10.0}], lr=1.0)
    optimizer.init_state()
    seed = torch.randn(64, generator=torch.Generator().manual_seed(3))
    optimizer.state[param]["exp_avg"].copy_(seed)
    _give_gradients([param])
    optimizer.step()
    assert torch.equal(param.detach(), -(0.9 * seed + 0.1 * param.grad).sign())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1.0}, "Invalid learning rate: -1.0, must be finite and >= 0"),
        ({"lr": float("nan")}, "Invalid learning rate: nan"),
        ({"lr": torch.ones(2)}, "Tensor lr must be 1-element"),
        ({"betas": (1.0, 0.9)}, r"Invalid beta parameter at index 0: 1.0, must lie in \[0, 1\)"),
        ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
        ({"betas": (0.9,)}, "Invalid betas: .*, must be two numbers"),
        ({"weight_decay": -0.1}, "Invalid weight_decay value: -0.1"),
        ({"lr": 0.0, "decoupled_weight_decay": True}, "Invalid reference_lr: 0.0, must be > 0"),
    ],
)  # fmt: skip
def test_bad_options_are_refused(kind: Any, options: dict[str, Any], message: str) -> None:
    """For the whole optimizer and in a single group, in torch's words."""
    param = Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=message):
        kind([param], **options)
    with pytest.raises(ValueError, match=message):
        kind([{"params": [param], **options}])


def test_bad_horizon_is_refused(kind: Any) -> None:
    """A momentum cannot average fewer than no gradients."""
    with pytest.raises(ValueError, match="Invalid horizon value: -1, must be finite and >= 0"):
        kind([{"params": [Parameter(torch.ones(1))], "horizon": -1}])


def test_examples_in_docstrings(kind: Any) -> None:
    """The example runs as it stands."""
    import doctest
    import sys

    results = doctest.testmod(sys.modules[kind.__module__])
    assert results.attempted > 0
    assert results.failed == 0


def test_saved_file_needs_no_class(kind: Any, tmp_path: Path) -> None:
    """State dicts hold tensors and plain values only."""
    optimizer = kind(_model().parameters())
    _train(optimizer)
    torch.save(optimizer.state_dict(), tmp_path / "lion.pt")
    loaded = torch.load(tmp_path / "lion.pt", weights_only=True)
    assert loaded["param_groups"][0].keys() == optimizer.state_dict()["param_groups"][0].keys()

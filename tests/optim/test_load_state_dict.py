"""State dicts that something else wrote."""

from __future__ import annotations

from typing import Any

import lion_pytorch
import pytest
import torch
from torch.nn import Parameter

from liontool.optim import Lion, LionSF


def _params() -> list[Parameter]:
    return [Parameter(torch.ones(2, 3)), Parameter(torch.ones(4))]


def _converted(**keys: Any) -> dict[str, Any]:
    """What `liontool convert` leaves: momentum, four options, and keys of a scheduler."""
    group = {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.2, "horizon": 10.0, **keys}
    state = {0: {"exp_avg": torch.full((2, 3), 0.5)}, 1: {"exp_avg": torch.full((4,), -0.5)}}
    return {"state": state, "param_groups": [{**group, "initial_lr": 1.0, "params": [0, 1]}]}


def test_absent_means_as_constructed() -> None:
    """Options that the file does not name keep what the constructor was given."""
    optimizer = LionSF(
        _params(), lr=0.5, maximize=True, decoupled_weight_decay=True, pow=2.0, agreement="group"
    )
    optimizer.load_state_dict(_converted())
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["horizon"]) == (0.1, 0.2, 10.0)
    assert (group["maximize"], group["pow"], group["agreement"]) == (True, 2.0, "group")
    assert (group["decoupled_weight_decay"], group["reference_lr"]) == (True, 0.5)
    assert group["initial_lr"] == 1.0


def test_options_of_a_group_count_as_constructed() -> None:
    """An option given to one group alone survives too."""
    params = _params()
    optimizer = Lion([{"params": params[:1], "maximize": True}, {"params": params[1:]}])
    group = _converted()["param_groups"][0]
    groups = [{**group, "params": [0]}, {**group, "params": [1]}]
    optimizer.load_state_dict({**_converted(), "param_groups": groups})
    assert [group["maximize"] for group in optimizer.param_groups] == [True, False]


def test_missing_step_starts_at_zero() -> None:
    """Whatever the optimizer did before, a converted momentum is at its beginning."""
    params = _params()
    optimizer = Lion(params)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    optimizer.load_state_dict(_converted())
    assert optimizer.param_groups[0]["step"] == 0
    assert optimizer.param_groups[0]["step"].dtype == torch.int64


@pytest.mark.parametrize("step", [7, 7.0, torch.tensor(7), torch.tensor(7.0)], ids=repr)
def test_step_is_an_integer_of_the_groups_own(step: Any) -> None:
    """Any number becomes a 0-d int64 tensor that shares nothing with the file."""
    saved = _converted(step=step)
    params = _params()
    optimizer = Lion(params)
    optimizer.load_state_dict(saved)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert optimizer.param_groups[0]["step"] == 8
    assert optimizer.param_groups[0]["step"].dtype == torch.int64
    assert saved["param_groups"][0]["step"] == 7


def test_state_without_horizon_is_plain_lion() -> None:
    """A momentum that knows no horizon is not averaged as if it had the one loaded before."""
    optimizer = Lion(_params())
    optimizer.load_state_dict(_converted())
    other = lion_pytorch.Lion(_params())
    optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["horizon"] is None


def test_keys_of_adam_go_with_one_warning() -> None:
    """Keys that mean nothing to a Lion are dropped and named; the user's own stay."""
    optimizer = Lion(_params())
    with pytest.warns(UserWarning, match="Lion does not know and drops: amsgrad, eps") as caught:
        optimizer.load_state_dict(_converted(eps=1e-8, amsgrad=False, max_lr=2.0, mine="kept"))
    assert [warning.filename for warning in caught] == [__file__]
    group = optimizer.param_groups[0]
    assert "eps" not in group
    assert (group["max_lr"], group["mine"]) == (2.0, "kept")


def test_adams_decoupled_weight_decay_is_not_lions() -> None:
    """AdamW has a group key of the same name, which tells it from Adam."""
    optimizer = Lion(_params())
    with pytest.warns(UserWarning, match="drops: amsgrad, decoupled_weight_decay"):
        optimizer.load_state_dict(_converted(amsgrad=False, decoupled_weight_decay=True))
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is False
    optimizer.load_state_dict(_converted(decoupled_weight_decay=True))
    assert optimizer.param_groups[0]["decoupled_weight_decay"] is True


def test_adams_step_of_a_parameter_goes_quietly() -> None:
    """A file keeps it for its own loader's sake."""
    saved = _converted()
    saved["state"][0]["step"] = torch.tensor(100.0)
    params = _params()
    optimizer = Lion(params)
    optimizer.load_state_dict(saved)
    assert set(optimizer.state[params[0]]) == {"exp_avg"}


def test_other_state_goes_with_a_warning() -> None:
    """What another Lion keeps beside its momentum is dropped and named."""
    saved = _converted()
    saved["state"][0]["kahan_comp"] = torch.zeros(2, 3)
    with pytest.warns(UserWarning, match="drops: kahan_comp"):
        Lion(_params()).load_state_dict(saved)


def test_state_of_adam_is_refused() -> None:
    """The message names the way out."""
    params = _params()
    adam = torch.optim.AdamW(params)
    for param in params:
        param.grad = torch.ones_like(param)
    adam.step()
    optimizer = Lion(_params())
    with pytest.raises(ValueError, match=r"holds 'exp_avg_sq', which is Adam's.* liontool convert"):
        optimizer.load_state_dict(adam.state_dict())
    assert not optimizer.state


def test_state_of_sgd_is_refused() -> None:
    """The message tells what was found instead of the momentum."""
    saved = _converted()
    saved["state"][0] = {"momentum_buffer": torch.ones(2, 3)}
    with pytest.raises(ValueError, match="has no tensor 'exp_avg', found 'momentum_buffer'"):
        Lion(_params()).load_state_dict(saved)


def test_wrong_shape_is_refused() -> None:
    """Both shapes are in the message."""
    saved = _converted()
    saved["state"][1]["exp_avg"] = torch.ones(5)
    with pytest.raises(ValueError, match=r"parameter 1: 'exp_avg' has shape \(5,\), the parameter"):
        Lion(_params()).load_state_dict(saved)


def test_illegal_option_is_refused() -> None:
    """A file cannot bring in what the constructor would refuse."""
    with pytest.raises(ValueError, match=r"Invalid beta parameter at index 1: 1.5"):
        Lion(_params()).load_state_dict(_converted(betas=(0.9, 1.5)))


@pytest.mark.parametrize("extra", [{"params": [0]}, {"params": [0, 1], "again": 1}])
def test_groups_that_do_not_fit_are_torchs_error(extra: dict[str, Any]) -> None:
    """Counts of groups and parameters are compared by torch, in its words."""
    saved = _converted()
    if "again" in extra:
        saved["param_groups"].append({**saved["param_groups"][0], "params": []})
    else:
        saved["param_groups"][0]["params"] = extra["params"]
    with pytest.raises(ValueError, match="loaded state dict"):
        Lion(_params()).load_state_dict(saved)


def test_hooks_of_the_user_come_first() -> None:
    """A pre-hook can mend what the check would refuse, and no hook of ours stays behind."""

    def mend(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        state = {key: {"exp_avg": entry["mu"]} for key, entry in saved["state"].items()}
        return {**saved, "state": state}

    saved = _converted()
    saved["state"] = {key: {"mu": entry["exp_avg"]} for key, entry in saved["state"].items()}
    params = _params()
    optimizer = Lion(params)
    optimizer.register_load_state_dict_pre_hook(mend)
    optimizer.load_state_dict(saved)
    assert optimizer.state[params[0]]["exp_avg"].eq(0.5).all()
    assert len(optimizer._optimizer_load_state_dict_pre_hooks) == 1


def test_state_of_lion_pytorch_goes_on_alike() -> None:
    """A run of lion_pytorch continues in the same direction."""
    theirs, ours = lion_pytorch.Lion(_params(), lr=0.1), Lion(_params())
    mine, other = ours.param_groups[0]["params"], theirs.param_groups[0]["params"]
    for seed in range(3):
        for param in other:
            param.grad = torch.randn(param.shape, generator=torch.Generator().manual_seed(seed))
        theirs.step()
    ours.load_state_dict(theirs.state_dict())
    for param, twin in zip(mine, other, strict=True):
        param.data.copy_(twin)
        param.grad = twin.grad
    theirs.step()
    ours.step()
    assert all(torch.equal(a, b) for a, b in zip(mine, other, strict=True))


def test_lion_pytorch_loads_ours() -> None:
    """Our state dict is one that lion_pytorch takes."""
    params = _params()
    ours, theirs = Lion(params, lr=0.3), lion_pytorch.Lion(_params())
    for param in params:
        param.grad = torch.ones_like(param)
    ours.step()
    theirs.load_state_dict(ours.state_dict())
    assert theirs.param_groups[0]["lr"] == 0.3

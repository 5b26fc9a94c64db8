"""State dicts that something else wrote."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import lion_pytorch
import pytest
import torch
from torch.nn import Parameter

from liontool.optim import Lion, LionSF
from support.lions import give_gradients, model, parameters, plain, same, snapshot, train


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


def test_paths_of_adam_are_not_lions() -> None:
    """How AdamW was computed says nothing of how we are to compute; what it maximised does."""
    optimizer = Lion(_params(), foreach=False)
    keys = {"fused": True, "foreach": None, "capturable": True, "maximize": True}
    with pytest.warns(UserWarning, match="drops: amsgrad, capturable, foreach, fused"):
        optimizer.load_state_dict(_converted(amsgrad=False, **keys))
    group = optimizer.param_groups[0]
    found = [group[name] for name in ("fused", "foreach", "capturable", "maximize")]
    assert found == [None, False, False, True]


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


def test_refused_state_leaves_all_as_it_was() -> None:
    """Neither groups nor state nor hooks change when the error comes."""
    optimizer = Lion(_params(), lr=0.5)
    train(optimizer)
    before = snapshot(optimizer)
    saved = _converted()
    saved["state"][1]["exp_avg_sq"] = torch.ones(4)
    with pytest.raises(ValueError, match="parameter 1: optimizer state holds 'exp_avg_sq'"):
        optimizer.load_state_dict(saved)
    assert same(snapshot(optimizer), before)
    assert optimizer.param_groups[0]["lr"] == 0.5
    assert not optimizer._optimizer_load_state_dict_pre_hooks
    assert not optimizer._optimizer_load_state_dict_post_hooks


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


# Every state that there is, in dtypes that torch's loader would cast.
EVERYTHING: dict[str, Any] = {
    "lr": 0.01, "rounding": "split", "state_dtype": torch.float32, "use_ema": True,
    "gradient_accumulation_steps": 2, "weight_decay": 0.1,
}  # fmt: skip
STATE = {
    "exp_avg": torch.float32,
    "residual": torch.int16,
    "ema": torch.float32,
    "accumulator": torch.float32,
}


def _trained(dtype: torch.dtype = torch.bfloat16, **options: Any) -> Any:
    optimizer = Lion(model(dtype).parameters(), **options)
    train(optimizer)
    return optimizer


def _twin(optimizer: Any, **options: Any) -> Any:
    """Another optimizer of copies of the weights."""
    return Lion([Parameter(param.detach().clone()) for param in parameters(optimizer)], **options)


def _dtypes(optimizer: Any) -> dict[str, torch.dtype]:
    entry = optimizer.state[parameters(optimizer)[0]]
    return {name: value.dtype for name, value in entry.items()}


@pytest.mark.parametrize("way", ["plain", "pickled", "file"])
def test_state_is_loaded_bit_for_bit(way: str, tmp_path: Path) -> None:
    """int16 and float32 beside bfloat16 weights, where torch's loader would cast; steps agree."""
    optimizer = _trained(**EVERYTHING)
    assert optimizer.param_groups[0]["micro_step"] == 1
    twin = _twin(optimizer)
    if way == "pickled":
        twin = pickle.loads(pickle.dumps(twin))
    saved = optimizer.state_dict()
    if way == "file":
        torch.save(saved, tmp_path / "lion.pt")
        saved = torch.load(tmp_path / "lion.pt", weights_only=True)
    twin.load_state_dict(saved)
    assert _dtypes(twin) == STATE
    assert same(snapshot(twin), snapshot(optimizer))
    assert all(map(torch.equal, train(twin), train(optimizer)))


def test_loaded_state_shares_no_memory() -> None:
    """What was loaded stays as it was, though the optimizer goes on."""
    optimizer = _trained(**EVERYTHING)
    saved = optimizer.state_dict()
    kept = copy.deepcopy(saved)
    twin = _twin(optimizer)
    twin.load_state_dict(saved)
    train(twin)
    for key, entry in kept["state"].items():
        assert all(torch.equal(value, saved["state"][key][name]) for name, value in entry.items())
    assert torch.equal(saved["param_groups"][0]["step"], kept["param_groups"][0]["step"])


def test_state_has_the_layout_of_its_parameter() -> None:
    """Strides in the file do not matter."""
    optimizer = Lion([Parameter(torch.ones(3, 2).t())])
    saved = _converted()
    saved["state"] = {0: saved["state"][0]}
    saved["param_groups"][0]["params"] = [0]
    optimizer.load_state_dict(saved)
    assert optimizer.state[parameters(optimizer)[0]]["exp_avg"].stride() == (1, 2)


@pytest.mark.parametrize(
    ("weights", "saved", "file", "constructor", "expected"),
    [
        ("float32", "float32", "absent", None, "float32"),
        ("float32", "bfloat16", "absent", None, "float32"),
        ("bfloat16", "float32", "absent", None, "float32"),
        ("bfloat16", "float32", None, None, "float32"),
        ("bfloat16", "float32", "absent", "bfloat16", "bfloat16"),
        ("bfloat16", "float32", "bfloat16", None, "bfloat16"),
        ("bfloat16", "bfloat16", "float32", "bfloat16", "float32"),
        ("float32", "float32", "bfloat16", None, "bfloat16"),
        ("float16", "bfloat16", "absent", None, "float32"),
        ("float16", "float32", "absent", None, "float32"),
        ("float16", "float64", "absent", None, "float32"),
        ("float32", "float64", "absent", None, "float32"),
        ("float64", "float32", "absent", None, "float64"),
        ("complex64", "complex64", "absent", None, "complex64"),
        ("complex64", "complex64", "absent", "float32", "complex64"),
    ],
)
def test_dtype_of_the_momentum(
    weights: str, saved: str, file: str | None, constructor: str | None, expected: str
) -> None:
    """Cast where `state_dtype` asks for it, the file's before the constructor's, else only widened.

    A group with a momentum wider than its weights says so from then on.
    """
    optimizer = Lion(
        [Parameter(torch.ones(3, dtype=getattr(torch, weights)))],
        state_dtype=constructor and getattr(torch, constructor),
    )
    momentum = torch.tensor([1.0, 1 / 3, -1e-3]).to(getattr(torch, saved))
    group: dict[str, Any] = {"lr": 0.1, "params": [0]}
    if file != "absent":
        group["state_dtype"] = file and getattr(torch, file)
    optimizer.load_state_dict({"state": {0: {"exp_avg": momentum}}, "param_groups": [group]})
    found = optimizer.state[parameters(optimizer)[0]]["exp_avg"]
    assert found.dtype == getattr(torch, expected)
    assert torch.equal(found, momentum.to(found.dtype))
    twin = _twin(optimizer)
    twin.load_state_dict(optimizer.state_dict())
    assert same(snapshot(twin), snapshot(optimizer))


def test_state_that_is_not_asked_for_goes_with_a_warning() -> None:
    """The loaded options decide; what they do without is named."""
    saved = _trained(**EVERYTHING).state_dict()
    saved["param_groups"][0].update(
        rounding="nearest", use_ema=False, gradient_accumulation_steps=None
    )
    twin = Lion(model(torch.bfloat16).parameters())
    drops = (
        r"drops: accumulator \(the loaded options do without it\), ema \(the .* without it\), "
        r"residual \(the loaded options do without it\)$"
    )
    with pytest.warns(UserWarning, match=drops):
        twin.load_state_dict(saved)
    assert set(_dtypes(twin)) == {"exp_avg"}
    assert twin.param_groups[0]["micro_step"] == 0


def test_state_that_is_missing_is_made_in_the_next_step() -> None:
    """A file without it can be loaded with options that need it; a sum begins anew."""
    saved = _trained(lr=0.01, state_dtype=torch.float32).state_dict()
    group = saved["param_groups"][0]
    for name in ("rounding", "use_ema", "gradient_accumulation_steps"):
        del group[name]
    group["micro_step"] = 1
    twin = Lion(model(torch.bfloat16).parameters(), **EVERYTHING)
    drops = r"drops: micro_step=1 \(no sum of gradients was loaded; it begins anew\)$"
    with pytest.warns(UserWarning, match=drops):
        twin.load_state_dict(saved)
    assert set(_dtypes(twin)) == {"exp_avg"}
    assert twin.param_groups[0]["micro_step"] == 0
    train(twin, 1)
    assert _dtypes(twin) == STATE


def _accumulating(steps: int, frozen: int) -> Any:
    """Three groups: one is frozen, one has no parameters, the last is trained."""
    groups = [{"params": list(layer.parameters())} for layer in model()]
    for param in groups[frozen]["params"]:
        param.requires_grad = False
    return Lion([*groups, {"params": []}], lr=0.01, gradient_accumulation_steps=steps)


def _give_and_step(optimizer: Any, seeds: range) -> None:
    params = [param for param in parameters(optimizer) if param.requires_grad]
    for seed in seeds:
        give_gradients(params, seed)
        optimizer.step()


@pytest.mark.parametrize("frozen", [0, 1])
@pytest.mark.parametrize("steps", [2, 3])
@pytest.mark.parametrize("stop", [3, 4, 5])
def test_accumulation_goes_on_beside_a_frozen_group(steps: int, stop: int, frozen: int) -> None:
    """A group that sums nothing up neither ends nor delays the sum of the others."""
    whole, first, second = (_accumulating(steps, frozen) for _ in range(3))
    _give_and_step(whole, range(9))
    _give_and_step(first, range(stop))
    with torch.no_grad():
        for mine, its in zip(parameters(second), parameters(first), strict=True):
            mine.copy_(its)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        second.load_state_dict(first.state_dict())
    assert [int(group["micro_step"]) for group in second.param_groups] == [stop % steps] * 3
    _give_and_step(second, range(stop, 9))
    assert same(snapshot(second), snapshot(whole))


def test_accumulation_keeps_the_highest_count() -> None:
    """Groups that counted less, because they came later or were frozen, get the others' count."""
    optimizer = _accumulating(3, 0)
    _give_and_step(optimizer, range(2))
    saved = optimizer.state_dict()
    saved["param_groups"][0]["micro_step"] = 0
    twin = _accumulating(3, 0)
    twin.load_state_dict(saved)
    assert [int(group["micro_step"]) for group in twin.param_groups] == [2, 2, 2]


def test_saved_number_of_gradients_wins() -> None:
    """As all options do that were saved; so a sum is ended where it would have been."""
    first, second = _accumulating(4, 0), _accumulating(2, 0)
    _give_and_step(first, range(3))
    second.load_state_dict(first.state_dict())
    assert {group["gradient_accumulation_steps"] for group in second.param_groups} == {4}
    assert second.param_groups[0]["micro_step"] == 3


@pytest.mark.parametrize("how", ["absent", "changed"])
def test_sum_of_more_gradients_than_asked_for_is_refused(how: str) -> None:
    """It can neither be ended nor divided as it was meant."""
    first, second = _accumulating(4, 0), _accumulating(2, 0)
    _give_and_step(first, range(3))
    saved = first.state_dict()
    for group in saved["param_groups"]:
        group["gradient_accumulation_steps"] = 2
        if how == "absent":
            del group["gradient_accumulation_steps"]
    message = (
        r"parameter group 0: Invalid micro_step: 3, must be < gradient_accumulation_steps=2; "
        r"give the number of gradients that the sum was begun with, or a micro_step of 0 to forget"
    )
    with pytest.raises(ValueError, match=message):
        second.load_state_dict(saved)
    for group in saved["param_groups"]:
        group["micro_step"] = 0
    second.load_state_dict(saved)


def test_hooks_of_the_user_find_the_state() -> None:
    """Post-hooks come after all of it is there."""
    optimizer = Lion(_params())
    seen: list[float] = []

    def look(loaded: Any) -> None:
        seen.extend(float(loaded.state[param]["exp_avg"].mean()) for param in parameters(loaded))

    optimizer.register_load_state_dict_post_hook(look)
    optimizer.load_state_dict(_converted())
    assert seen == [0.5, -0.5]
    assert len(optimizer._optimizer_load_state_dict_post_hooks) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("residual", torch.ones(2, 3), "'residual' has dtype torch.float32, must be torch.int16"),
        ("exp_avg", torch.ones(2, 3).int(), "'exp_avg' has dtype torch.int32, must be a floating"),
        ("ema", torch.ones(2, 3, dtype=torch.complex64), "'ema' has dtype torch.complex64, must"),
        ("ema", torch.ones(3), r"'ema' has shape \(3,\), the parameter \(2, 3\)"),
        ("accumulator", 1.0, "'accumulator' is a float, must be a tensor"),
    ],
)
def test_state_of_the_wrong_kind_is_refused(name: str, value: Any, message: str) -> None:
    """Each message names the parameter, what was found and what is allowed."""
    saved = _converted(rounding="split", use_ema=True, gradient_accumulation_steps=2)
    saved["state"][0][name] = value
    with pytest.raises(ValueError, match=f"parameter 0: {message}"):
        Lion(_params()).load_state_dict(saved)


def test_state_that_is_no_dict_is_refused() -> None:
    """As some optimizers keep lists."""
    saved = _converted()
    saved["state"][1] = [torch.ones(4)]
    with pytest.raises(ValueError, match="parameter 1: its state is a list, must be a dict of"):
        Lion(_params()).load_state_dict(saved)


def test_real_momentum_of_complex_weights_is_refused() -> None:
    """Half of it would be made up."""
    optimizer = Lion([Parameter(torch.ones(3, dtype=torch.complex64))])
    saved = {"state": {0: {"exp_avg": torch.ones(3)}}, "param_groups": [{"params": [0]}]}
    with pytest.raises(ValueError, match=r"has dtype torch\.float32, must be complex, as the"):
        optimizer.load_state_dict(saved)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (({"rounding": "split"}, {}), "Invalid rounding: 'split' for a float16 parameter"),
        (({"use_ema": True}, {"use_ema": False}), "Invalid use_ema: .* must be the same in all"),
        (({"state_dtype": "int8"}, {}), "Invalid state_dtype: 'int8'"),
        (({"decoupled_weight_decay": True, "reference_lr": 0.0}, {}), "Invalid reference_lr: 0.0"),
    ],
)
def test_loaded_options_are_checked_as_given_ones(groups: Any, message: str) -> None:
    """Against the dtype of the weights, and against those of other groups."""
    params = [Parameter(torch.ones(2, dtype=torch.float16)) for _ in range(2)]
    optimizer = Lion([{"params": [param]} for param in params])
    saved = [{**group, "params": [index]} for index, group in enumerate(groups)]
    before = copy.deepcopy(optimizer.state_dict())
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict({"state": {}, "param_groups": saved})
    assert plain(optimizer.state_dict()) == plain(before)


def test_fused_where_there_is_no_kernel_is_as_constructed() -> None:
    """A run on a GPU goes on where there is none; what says how to compute is not state."""
    params = [Parameter(torch.ones(2, 3, dtype=torch.float64)), Parameter(torch.ones(4).double())]
    optimizer = Lion(params, fused=False)
    optimizer.load_state_dict(_converted(fused=True))
    assert optimizer.param_groups[0]["fused"] is False


def test_text_names_a_dtype() -> None:
    """JSON has no dtypes."""
    optimizer = Lion(_params())
    optimizer.load_state_dict(_converted(state_dtype="bfloat16"))
    assert optimizer.param_groups[0]["state_dtype"] == "bfloat16"
    assert set(_dtypes(optimizer).values()) == {torch.bfloat16}


def test_state_of_a_frozen_parameter_may_lack() -> None:
    """It gets its own when it needs it."""
    saved = _converted()
    del saved["state"][1]
    optimizer = Lion(_params())
    optimizer.load_state_dict(saved)
    assert list(optimizer.state) == parameters(optimizer)[:1]
    train(optimizer, 1)
    assert len(optimizer.state) == 2


def test_steps_without_any_momentum_are_refused() -> None:
    """Whoever has made steps has a momentum; it was lost on the way."""
    trained = _trained(lr=0.01)
    saved = {**trained.state_dict(), "state": {}}
    message = r"3 steps, but no parameter has state; call optimizer\.init_state\(\) before"
    with pytest.raises(ValueError, match=message):
        _twin(trained).load_state_dict(saved)
    saved["param_groups"][0]["step"] = 0  # the other way out
    twin = _twin(trained)
    twin.load_state_dict(saved)
    assert not twin.state


@pytest.mark.parametrize("kind", ["SGD", "Adam", "Adagrad", "RMSprop"])
def test_groups_of_another_optimizer_without_state_are_refused(kind: str) -> None:
    """Its lr and its weight decay are not a Lion's."""
    other = getattr(torch.optim, kind)(_params(), lr=0.3, weight_decay=0.2)
    other.state.clear()
    optimizer = Lion(_params(), lr=0.5)
    with pytest.raises(ValueError, match=rf"no state, and its groups are those of {kind}; only a"):
        optimizer.load_state_dict(other.state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_groups_of_a_lion_without_state_are_loaded() -> None:
    """Ours and others' that have made no step."""
    optimizer = LionSF(_params(), lr=0.5)
    optimizer.load_state_dict(LionSF(_params(), lr=0.3, pow=2.0).state_dict())
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["pow"]) == (0.3, 2.0)
    optimizer.load_state_dict(lion_pytorch.Lion(_params(), lr=0.2).state_dict())
    assert optimizer.param_groups[0]["lr"] == 0.2


@pytest.mark.parametrize("keys", [["agreement"], ["pow", "agreement"]])
def test_no_key_makes_lion_scale(keys: list[str]) -> None:
    """What LionSF alone has is dropped with the line, together or not."""
    scaled = {"agreement": "group", "pow": 0.0}
    optimizer, twin = Lion(_params()), Lion(_params())
    with pytest.warns(UserWarning, match=f"drops: {', '.join(sorted(keys))}$"):
        optimizer.load_state_dict(_converted(**{key: scaled[key] for key in keys}))
    assert not scaled.keys() & optimizer.param_groups[0].keys()
    twin.load_state_dict(_converted())
    assert all(map(torch.equal, train(optimizer), train(twin)))


@pytest.mark.parametrize("name", ["step", "micro_step"])
@pytest.mark.parametrize("value", [2.7, -1, "x", None, float("nan"), torch.ones(2)], ids=repr)
def test_illegal_count_is_refused(name: str, value: Any) -> None:
    """The message names group and value, and nothing has changed."""
    optimizer = Lion(_params(), lr=0.5)
    with pytest.raises(ValueError, match=rf"parameter group 0: Invalid {name}: "):
        optimizer.load_state_dict(_converted(**{name: value}))
    assert optimizer.param_groups[0]["lr"] == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [("betas", None), ("betas", 0.9), ("betas", ("x", 0.9)), ("lr", None), ("lr", "fast"),
     ("weight_decay", None), ("weight_decay", "x"), ("horizon", "x"), ("cautious_factor", None),
     ("reference_lr", None), ("reference_lr", "x"), ("rounding_seed", None),
     ("state_dtype", 7), ("rounding", ["split"]), ("gradient_accumulation_steps", 2.5)],
)  # fmt: skip
def test_illegal_value_names_its_group(name: str, value: Any) -> None:
    """Whatever a file may hold, it is a ValueError."""
    saved = _converted(**{name: value})
    if name == "reference_lr":
        saved["param_groups"][0]["decoupled_weight_decay"] = True
    with pytest.raises(ValueError, match=r"parameter group 0: Invalid "):
        Lion(_params()).load_state_dict(saved)


def test_state_of_no_parameter_is_kept() -> None:
    """Whoever put it there will want it back."""
    optimizer = Lion(_params())
    optimizer.load_state_dict({**_converted(), "state": {**_converted()["state"], "mine": 7}})
    assert optimizer.state["mine"] == 7  # type: ignore[index]


def test_no_momentum_is_narrowed_for_a_wider_one() -> None:
    """One state_dtype for weights of float64 and a momentum of float32 beside bfloat16 ones."""
    weights = [torch.ones(3, dtype=torch.float64), torch.ones(3, dtype=torch.bfloat16)]
    momenta = [torch.full((3,), 1 / 3, dtype=torch.float64), torch.full((3,), 1 / 3)]
    state = {key: {"exp_avg": momentum} for key, momentum in enumerate(momenta)}
    saved = {"state": state, "param_groups": [{"params": [0, 1]}]}
    message = (
        r"parameter 1: 'exp_avg' is torch\.float32, more than its torch\.bfloat16 weights are, and "
        r"state_dtype='float32' would narrow that of the torch\.float64 weights of its group; .*"
    )
    with pytest.raises(ValueError, match=message):
        Lion([Parameter(weight) for weight in weights]).load_state_dict(saved)
    asked = Lion([Parameter(weight) for weight in weights], state_dtype=torch.float32)
    asked.load_state_dict(saved)
    assert set(_dtypes(asked).values()) == {torch.float32}
    apart = Lion([{"params": [Parameter(weight)]} for weight in weights])
    apart.load_state_dict({**saved, "param_groups": [{"params": [0]}, {"params": [1]}]})
    assert [apart.state[param]["exp_avg"].dtype for param in parameters(apart)] == [
        torch.float64, torch.float32,
    ]  # fmt: skip


def test_state_dict_is_ready_before_the_hooks_of_the_user() -> None:
    """They may put it into anything, and find it as it will be saved."""
    optimizer = _trained(**EVERYTHING)
    seen: list[torch.dtype] = []

    def wrap(_: Any, saved: dict[str, Any]) -> dict[str, Any]:
        seen.append(saved["state"][0]["residual"].dtype)
        return {"optim": saved}

    optimizer.register_state_dict_post_hook(wrap)
    saved = optimizer.state_dict()
    assert list(saved) == ["optim"]
    assert seen == [torch.int32]
    assert optimizer.state[parameters(optimizer)[0]]["residual"].dtype == torch.int16
    assert len(optimizer._optimizer_state_dict_post_hooks) == 1
    twin = _twin(optimizer)
    twin.load_state_dict(saved["optim"])
    assert same(snapshot(twin), snapshot(optimizer))


def test_a_load_that_drops_nothing_is_silent() -> None:
    """Our own states, and those of others that have the same keys."""
    trained = _trained(**EVERYTHING)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Lion(_params()).load_state_dict(_converted())
        _twin(trained).load_state_dict(trained.state_dict())


def test_a_damaged_residual_is_refused() -> None:
    """Values that no residual can have would wrap without a word."""
    param = Parameter(torch.ones(2, dtype=torch.bfloat16))
    optimizer = Lion([param], rounding="split")
    optimizer.init_state()
    saved = optimizer.state_dict()
    saved["state"][0]["residual"] = torch.tensor([1, 70_000], dtype=torch.int32)
    with pytest.raises(ValueError, match="'residual' has values beyond 16 bits"):
        optimizer.load_state_dict(saved)

"""`load_optimizer`: what goes where, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from liontool.checkpoint.document import Computed, Opaque, TensorRef
from liontool.checkpoint.model import Fields, Optimizer, ParamGroup, Slot
from liontool.errors import LoadError
from liontool.loading import load_optimizer, state_dict_for
from liontool.optim import Lion, LionSF

NAMES = ("0.weight", "0.bias", "1.weight", "1.bias")


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))


def _ref(tensor: Tensor) -> TensorRef:
    def blocks() -> Iterator[bytes]:
        yield tensor.numpy().tobytes()

    return TensorRef(str(tensor.dtype)[6:], tuple(tensor.shape), Computed(blocks))


def _saved(
    tensors: Mapping[int | str, Tensor],
    groups: list[list[int | str]],
    names: bool = False,
    **fields: Any,
) -> Optimizer:
    """A Lion's state as a framework would find it."""
    slots = {key: Slot(key, Fields({"exp_avg": _ref(tensor)})) for key, tensor in tensors.items()}
    options = {"lr": 0.5, "betas": (0.9, 0.98), "weight_decay": 0.1, "horizon": 10.0, **fields}
    return Optimizer(
        "optimizer",
        tuple(
            ParamGroup(
                Fields(options),
                tuple(keys),
                tuple(NAMES[int(key)] for key in keys) if names else (),
            )
            for keys in groups
        ),
        slots,
    )


def _momenta(model: nn.Module) -> list[Tensor]:
    """A momentum for each parameter that cannot be taken for another's."""
    return [torch.full_like(param, float(i + 1)) for i, param in enumerate(model.parameters())]


def _found(optimizer: torch.optim.Optimizer, model: nn.Module) -> list[float]:
    return [optimizer.state[param]["exp_avg"].mean().item() for param in model.parameters()]


def _load(optimizer: torch.optim.Optimizer, saved: Optimizer, model: nn.Module | None) -> None:
    optimizer.load_state_dict(state_dict_for(optimizer, saved, model, "run.pt"))


def test_by_position() -> None:
    """Without names the order decides; the options of the file win, all others stay."""
    model = _model()
    optimizer = LionSF(model.parameters(), lr=1.0, pow=2.0)
    _load(optimizer, _saved(dict(enumerate(_momenta(model))), [[0, 1, 2, 3]]), None)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["pow"]) == (0.5, 0.1, 2.0)
    assert (group["betas"], group["horizon"]) == ((0.9, 0.98), 10.0)


def test_by_name_in_any_order() -> None:
    """With a model, each state finds the parameter of its name and each group its members."""
    model = _model()
    groups = [{"params": [model[1].bias, model[0].bias]}, {"params": [model[1].weight]}]
    optimizer = Lion([*groups, {"params": [model[0].weight]}])
    saved = _saved(dict(enumerate(_momenta(model))), [[0], [1, 3], [2]], names=True)
    _load(optimizer, saved, model)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]


def test_options_follow_their_group() -> None:
    """A group of the file that stands elsewhere takes its options along."""
    model = _model()
    optimizer = Lion([{"params": list(model[1].parameters())}, {"params": model[0].parameters()}])
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1], [2, 3]], names=True)
    first, second = saved.groups
    second = ParamGroup(second.fields.replaced({"lr": 0.25}), second.params, second.names)
    _load(optimizer, Optimizer("", (first, second), saved.slots), model)
    assert [group["lr"] for group in optimizer.param_groups] == [0.25, 0.5]


def test_by_the_optimizers_own_names() -> None:
    """An optimizer that was built with names needs no model, and keeps its names."""
    model = _model()
    named = list(model.named_parameters())
    optimizer = Lion(named[::-1])
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1, 2, 3]], True, param_names=NAMES)
    _load(optimizer, saved, None)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]
    assert optimizer.param_groups[0]["param_names"] == list(NAMES[::-1])


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_prefixes_are_overlooked(prefix: str) -> None:
    """DDP and torch.compile put words before names, in the file or in the model."""
    model = _model()
    saved = _saved({prefix + n: m for n, m in zip(NAMES, _momenta(model), strict=True)}, [
        [prefix + name for name in NAMES]
    ])  # fmt: skip
    for live in (model, nn.ModuleDict({"module": model})):
        optimizer = Lion(live.parameters())
        _load(optimizer, saved, live)
        assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]


def test_an_exact_name_goes_before_a_bare_one() -> None:
    """A model may own both `module.x` and `x`."""
    model = nn.ParameterDict(
        {"x": torch.zeros(1), "module": nn.ParameterDict({"x": torch.zeros(1)})}
    )
    momenta = {"x": torch.ones(1), "module.x": torch.full((1,), 2.0)}
    optimizer = Lion(model.parameters())
    _load(optimizer, _saved(momenta, [["x", "module.x"]]), model)
    found = {name: optimizer.state[p]["exp_avg"].item() for name, p in model.named_parameters()}
    assert found == {"x": 1.0, "module.x": 2.0}


def test_tied_parameters_answer_to_either_name() -> None:
    """The file may have saved a tied weight under its other name."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    optimizer = Lion(model.parameters())
    _load(optimizer, _saved({"1.weight": torch.ones(3, 3)}, [["1.weight"]]), model)
    assert _found(optimizer, model) == [1.0]


def test_parameters_without_state_stay_without() -> None:
    """A frozen parameter has a place in its group and no state."""
    model = _model()
    optimizer = Lion(model.parameters())
    _load(optimizer, _saved({2: _momenta(model)[2]}, [[0, 1, 2, 3]]), None)
    assert list(optimizer.state) == [model[1].weight]


def test_nothing_is_read_that_is_not_needed() -> None:
    """State that no group lists is left alone."""
    model = _model()
    saved = _saved({**dict(enumerate(_momenta(model))), 9: torch.ones(1)}, [[0, 1, 2, 3]])
    assert set(state_dict_for(Lion(model.parameters()), saved, None, "x")["state"]) == {0, 1, 2, 3}


def test_other_optimizers_get_whatever_the_file_has() -> None:
    """State and options go to any optimizer of torch; options that are missing stay."""
    model = _model()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0, momentum=0.7)
    slots = {0: Slot(0, Fields({"momentum_buffer": _ref(torch.ones(5, 3))}))}
    group = ParamGroup(Fields({"lr": _ref(torch.tensor(0.5))}), (0, 1, 2, 3))
    _load(optimizer, Optimizer("", (group,), slots), model)
    assert optimizer.state[model[0].weight]["momentum_buffer"].eq(1).all()
    assert optimizer.param_groups[0]["momentum"] == 0.7
    assert isinstance(optimizer.param_groups[0]["lr"], Tensor)


def _refused(
    optimizer: torch.optim.Optimizer, saved: Optimizer, model: nn.Module | None, message: str
) -> None:
    with pytest.raises(LoadError, match=message) as caught:
        state_dict_for(optimizer, saved, model, "run.pt")
    assert "\n" not in str(caught.value)


def test_other_groups_are_refused_by_position() -> None:
    """Both shapes of the groups are in the message."""
    model = _model()
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1], [2, 3]])
    message = r"run.pt: its groups have 2 \+ 2 parameters, the optimizer's 4; build the optimizer"
    _refused(Lion(model.parameters()), saved, None, message)


def test_other_groups_are_refused_by_name() -> None:
    """The members of the group that nothing matches are named."""
    model = _model()
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1], [2, 3]], names=True)
    message = r"its groups have 2 \+ 2 parameters, and none the 4 members of .* group 0: '0.weight'"
    _refused(Lion(model.parameters()), saved, model, message)


def test_missing_and_unexpected_parameters_are_named() -> None:
    """What the file lacks and what it has too much."""
    model = _model()
    momenta = {0: torch.ones(5, 3), 1: torch.ones(5), 2: torch.ones(2, 5)}
    saved = _saved(momenta, [[0, 1, 2]], names=True)
    optimizer = Lion([model[0].weight, model[0].bias, model[1].bias])
    message = "it lacks '1.bias' and has in addition '1.weight'; build the optimizer"
    _refused(optimizer, saved, model, message)


def test_many_names_are_cut_short() -> None:
    """A message stays one line that can be read."""
    model = nn.ParameterDict({f"p{i}": torch.zeros(1) for i in range(8)})
    saved = _saved({"q": torch.zeros(1)}, [["q"]])
    _refused(Lion(model.parameters()), saved, model, "lacks 'p0', .*'p4' and 3 more and has")


@pytest.mark.parametrize("names", [False, True])
def test_another_shape_is_refused(names: bool) -> None:
    """Both shapes are in the message, by position and by name."""
    model = _model()
    saved = _saved({1: torch.ones(4)}, [[0, 1, 2, 3]], names=names)
    message = (
        r"run.pt: parameter 1: 'exp_avg' has shape \(4,\), the parameter \(5,\); build the model"
    )
    _refused(Lion(model.parameters()), saved, model, message)


def test_another_model_is_refused() -> None:
    """The model must be the one that the optimizer was built from."""
    saved = _saved(dict(enumerate(_momenta(_model()))), [[0, 1, 2, 3]], names=True)
    message = "the model lacks 4 parameters of the optimizer; give the model"
    _refused(Lion(_model().parameters()), saved, _model(), message)


def test_weights_that_were_not_tied_are_refused() -> None:
    """Two momenta cannot go to one parameter."""
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    both = {f"{i}.weight": torch.ones(3, 3) for i in range(2)}
    message = "holds '0.weight', '1.weight' apart, which the model ties; build the model"
    _refused(Lion(model.parameters()), _saved(both, [list(both)]), model, message)


def _adam_state(model: nn.Module) -> Optimizer:
    slots = {
        i: Slot(i, Fields({"exp_avg": _ref(m), "exp_avg_sq": _ref(m), "step": 3.0}))
        for i, m in enumerate(_momenta(model))
    }
    return Optimizer("", (ParamGroup(Fields({"lr": 0.1}), (0, 1, 2, 3)),), slots)


def test_state_of_adam_does_not_go_into_a_lion() -> None:
    """The message is the command that converts it."""
    model = _model()
    message = "holds the state of AdamW, which Lion cannot go on from; .*: liontool convert run.pt"
    _refused(Lion(model.parameters()), _adam_state(model), None, message)


def test_state_of_a_lion_does_not_go_into_adam() -> None:
    """Without second moments AdamW would fail in its next step."""
    model = _model()
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1, 2, 3]])
    message = "has no 'exp_avg_sq', which AdamW cannot go on without; load the checkpoint"
    _refused(torch.optim.AdamW(model.parameters()), saved, None, message)


def test_state_of_a_lion_does_not_go_into_sgd() -> None:
    """Of an optimizer that reads neither momentum nor betas."""
    model = _model()
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1, 2, 3]])
    message = "holds the state of Lion, which SGD cannot go on from; load it into Lion"
    _refused(torch.optim.SGD(model.parameters(), lr=0.1), saved, None, message)


def test_unknown_objects_are_refused() -> None:
    """An object that nobody builds cannot be part of a state."""
    model = _model()
    slots = {0: Slot(0, Fields({"exp_avg": Opaque("evil.Thing", (), {})}))}
    saved = Optimizer("", (ParamGroup(Fields({}), (0, 1, 2, 3)),), slots)
    _refused(
        Lion(model.parameters()),
        saved,
        None,
        "run.pt: parameter 0: exp_avg: is a evil.Thing, only tensors",
    )


def test_dtypes_are_options() -> None:
    """The dtype of the momentum is the one object that an option can be."""
    model = _model()
    dtype = Opaque("torch.bfloat16", (), None)
    saved = _saved(dict(enumerate(_momenta(model))), [[0, 1, 2, 3]], state_dtype=dtype)
    optimizer = Lion(model.parameters())
    _load(optimizer, saved, None)
    assert optimizer.param_groups[0]["state_dtype"] == "bfloat16"


def test_nested_state_of_bitsandbytes() -> None:
    """Its momentum lies one level deeper than that of others."""
    model = _model()
    slots = {
        key: Slot(
            key, Fields({"step": 3, "__bnb_optimizer_quant_state__": {"state1": _ref(moment)}})
        )
        for key, moment in enumerate(_momenta(model))
    }
    fields = Fields({"lr": 0.5, "betas": (0.9, 0.99), "eps": 0.0, "weight_decay": 0})
    optimizer = Lion(model.parameters())
    with pytest.warns(UserWarning, match="drops: eps$"):
        _load(optimizer, Optimizer("", (ParamGroup(fields, (0, 1, 2, 3)),), slots), None)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]


def test_second_moment_of_deepspeeds_lion() -> None:
    """CPULion has zeros there, by which it is told from Adam."""
    model = _model()
    slots = {
        key: Slot(
            key,
            Fields({"step": 3, "exp_avg": _ref(moment), "exp_avg_sq": _ref(0 * moment)}),
        )
        for key, moment in enumerate(_momenta(model))
    }
    fields = Fields({"lr": 0.5, "betas": (0.9, 0.99), "weight_decay": 0})
    optimizer = Lion(model.parameters())
    with pytest.warns(UserWarning, match=r"drops: exp_avg_sq \(nothing but zeros\)$"):
        _load(optimizer, Optimizer("", (ParamGroup(fields, (0, 1, 2, 3)),), slots), None)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]


def _trained(optimizer: torch.optim.Optimizer, steps: int = 2) -> torch.optim.Optimizer:
    params = [param for group in optimizer.param_groups for param in group["params"]]
    for seed in range(steps):
        generator = torch.Generator().manual_seed(seed)
        for param in params:
            param.grad = torch.randn(param.shape, generator=generator, dtype=torch.float64).to(
                param
            )
        optimizer.step()
    return optimizer


def _same_state(a: torch.optim.Optimizer, b: torch.optim.Optimizer) -> None:
    for mine, other in zip(a.state.values(), b.state.values(), strict=True):
        assert mine.keys() == other.keys()
        assert all(torch.equal(torch.as_tensor(mine[k]), torch.as_tensor(other[k])) for k in mine)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
def test_torch_file_of_a_lion(tmp_path: Path, dtype: torch.dtype) -> None:
    """What torch saved is what comes back, the count of steps included."""
    first, second = _model().to(dtype), _model().to(dtype)
    before = _trained(Lion(first.parameters(), lr=0.25))
    torch.save({"model": first.state_dict(), "optimizer": before.state_dict()}, tmp_path / "a.pt")
    after = Lion(second.parameters())
    load_optimizer(tmp_path / "a.pt", after, second)
    _same_state(after, before)
    assert after.param_groups[0]["step"] == 2
    assert after.param_groups[0]["lr"] == 0.25


def test_torch_file_of_adamw(tmp_path: Path) -> None:
    """AdamW's state goes back into AdamW, and the two run on alike."""
    first, second = _model(), _model()
    before = _trained(torch.optim.AdamW(first.named_parameters(), lr=0.25, amsgrad=True))
    torch.save(before.state_dict(), tmp_path / "a.pt")
    after = torch.optim.AdamW(second.parameters())
    load_optimizer(tmp_path / "a.pt", after, second)
    _same_state(after, before)
    second.load_state_dict(first.state_dict())
    _trained(before)
    _trained(after)
    assert all(map(torch.equal, first.parameters(), second.parameters()))


def test_one_of_several_optimizers(tmp_path: Path) -> None:
    """A file with two wants to be told which."""
    model = _model()
    one, two = (
        _trained(Lion(half.parameters(), lr=lr))
        for half, lr in zip(model, (0.5, 0.25), strict=True)
    )
    torch.save({"a": one.state_dict(), "b": two.state_dict()}, tmp_path / "two.pt")
    after = Lion(_model()[1].parameters())
    with pytest.raises(
        LoadError, match=r"holds 2 optimizers: 'a', 'b'; choose one: load_optimizer"
    ):
        load_optimizer(tmp_path / "two.pt", after)
    load_optimizer(tmp_path / "two.pt", after, optimizer_path="b")
    _same_state(after, two)


def test_error_of_the_optimizer_names_the_file(tmp_path: Path) -> None:
    """What only the optimizer finds wrong is a LoadError too."""
    saved = _trained(Lion(_model().parameters())).state_dict()
    saved["param_groups"][0]["betas"] = (0.9, 1.5)
    torch.save(saved, tmp_path / "bad.pt")
    with pytest.raises(LoadError, match=r"bad.pt: .* 0: Invalid beta parameter at index 1: 1.5"):
        load_optimizer(tmp_path / "bad.pt", Lion(_model().parameters()))


def test_state_file(tmp_path: Path) -> None:
    """A safetensors file in liontool's layout goes where its names say."""
    model = _model()
    params = dict(zip(NAMES, _momenta(model), strict=True))
    group = {"lr": 0.5, "betas": [0.9, 0.98], "weight_decay": 0.1, "horizon": 10.0}
    metadata = {
        "liontool.schema": "1",
        "liontool.param_groups": json.dumps([{**group, "params": list(NAMES[::-1])}]),
        "liontool.lr_scheduler": "[]",
        "liontool.provenance": "{}",
    }
    tensors = {f"state.{name}.exp_avg": tensor for name, tensor in params.items()}
    save_file(tensors, tmp_path / "state.safetensors", metadata)
    optimizer = Lion(model.parameters())
    load_optimizer(tmp_path / "state.safetensors", optimizer, model)
    assert _found(optimizer, model) == [1.0, 2.0, 3.0, 4.0]
    assert optimizer.param_groups[0]["horizon"] == 10.0

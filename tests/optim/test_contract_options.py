"""Options: what is refused, in which words, and by which names and places they are given."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import Parameter

from liontool import optim
from liontool.optim import LionSF, _options, backends
from support.lions import model, parameters, train

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"lr": -1.0}, "Invalid learning rate: -1.0, must be finite and >= 0"),
    ({"lr": float("nan")}, "Invalid learning rate: nan"),
    ({"lr": float("inf")}, "Invalid learning rate: inf"),
    ({"lr": torch.tensor(-0.5)}, "Invalid learning rate: -0.5"),
    ({"lr": torch.ones(2)}, r"Tensor lr must be 1-element, got shape \(2,\)"),
    ({"betas": (1.0, 0.9)}, r"Invalid beta parameter at index 0: 1.0, must lie in \[0, 1\)"),
    ({"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
    ({"betas": (0.9, float("nan"))}, "Invalid beta parameter at index 1: nan"),
    ({"betas": (0.9,)}, r"Invalid betas: \(0.9,\), must be two numbers"),
    ({"weight_decay": -0.1}, "Invalid weight_decay value: -0.1, must be finite and >= 0"),
    ({"weight_decay": None}, "Invalid weight_decay value: None"),
    ({"lr": 0.0, "decoupled_weight_decay": True}, "Invalid reference_lr: 0.0, must be > 0 with"),
    ({"cautious_factor": -0.5}, r"Invalid cautious_factor: -0.5, must lie in \[0, 1\]"),
    ({"cautious_factor": 1.5}, "Invalid cautious_factor: 1.5"),
    ({"rounding": "up"}, "Invalid rounding: 'up', choose from: nearest, split, stochastic"),
    ({"nonfinite": "hide"}, "Invalid nonfinite: 'hide', choose from: propagate, skip, raise"),
    ({"state_dtype": torch.float16}, "Invalid state_dtype: torch.float16, must be None, torch.fl"),
    ({"state_dtype": "int8"}, "Invalid state_dtype: 'int8', must be None"),
    ({"clipnorm": 0.0}, "Invalid clipnorm: 0.0, must be finite and > 0"),
    ({"clipvalue": -1.0}, "Invalid clipvalue: -1.0, must be finite and > 0"),
    ({"global_clipnorm": float("inf")}, "Invalid global_clipnorm: inf"),
    ({"clipnorm": 1.0, "clipvalue": 2.0}, "Invalid clipvalue: 2.0, clipnorm is given too; at most"),
    ({"clipvalue": 1.0, "global_clipnorm": 2.0}, "Invalid global_clipnorm: 2.0, clipvalue is gi"),
    ({"ema_momentum": 1.5}, r"Invalid ema_momentum: 1.5, must lie in \[0, 1\]"),
    ({"ema_overwrite_frequency": 0}, "Invalid ema_overwrite_frequency: 0, must be None or an int"),
    ({"loss_scale_factor": 0.0}, "Invalid loss_scale_factor: 0.0, must be finite and > 0"),
    ({"gradient_accumulation_steps": 1}, "Invalid gradient_accumulation_steps: 1, must be None"),
    ({"gradient_accumulation_steps": 2.5}, "Invalid gradient_accumulation_steps: 2.5, must be"),
    ({"foreach": True, "fused": True}, "Invalid fused: True with foreach=True, at most one"),
    ({"foreach": True, "differentiable": True}, "Invalid foreach: True with differentiable=True"),
    ({"fused": True, "differentiable": True}, "Invalid fused: True with differentiable=True"),
    ({"fused": True, "clipnorm": 0.5}, "Invalid fused: True with clipnorm=0.5, which the cpu kern"),
]

NO_NUMBER = ("1", None, True, torch.tensor(True), torch.ones(2), 1j, [0.5])
NO_FLAG = ("no", 1, 0, "False", torch.tensor(True))
FLAGS = ("decoupled_weight_decay", "cautious_wd", "maximize", "capturable", "differentiable")
NUMBERS = ("weight_decay", "cautious_factor", "ema_momentum")
NUMBERS_OR_NONE = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor")
INTEGERS = ("ema_overwrite_frequency", "gradient_accumulation_steps")

REFUSED += [({name: value}, f"Invalid {name}") for name in NUMBERS for value in NO_NUMBER]
REFUSED += [
    ({name: value}, f"Invalid {name}: .*must be a number and")
    for name in NUMBERS_OR_NONE
    for value in NO_NUMBER
    if value is not None
]
REFUSED += [
    ({name: value}, f"Invalid {name}: .*must be True or False")
    for name in (*FLAGS, "use_ema")
    for value in (*NO_FLAG, None)
]
REFUSED += [
    ({name: value}, f"Invalid {name}: .*must be None, True or False")
    for name in ("foreach", "fused")
    for value in NO_FLAG
]
REFUSED += [
    ({name: value}, f"Invalid {name}: .*must be None or an integer >= ")
    for name in INTEGERS
    for value in (True, 2.0, "2", float("nan"), torch.tensor(2))
]
REFUSED += [
    ({"lr": "1"}, "Invalid learning rate: '1', must be a number and be finite and >= 0"),
    ({"lr": None}, "Invalid learning rate: None, must be a number"),
    ({"lr": True}, "Invalid learning rate: True, must be a number"),
    ({"lr": torch.tensor(True)}, r"Invalid learning rate: tensor\(True\), must be a number"),
    ({"lr": torch.tensor(1j)}, r"Invalid learning rate: tensor\(0.\+1.j\), must be a number"),
    ({"weight_decay": torch.ones(2)}, r"value: tensor of shape \(2,\), must be a number"),
    ({"betas": None}, "Invalid betas: None, must be two numbers"),
    ({"betas": 0.9}, "Invalid betas: 0.9, must be two numbers"),
    ({"betas": "ab"}, "Invalid betas: 'ab', must be two numbers"),
    ({"betas": {0.5, 0.9}}, "Invalid betas: {.*}, must be two numbers"),
    ({"betas": (None, 0.9)}, "Invalid beta parameter at index 0: None, must be a number and lie"),
    ({"betas": (0.9, "0.9")}, "Invalid beta parameter at index 1: '0.9', must be a number"),
    ({"state_dtype": ["float32"]}, r"Invalid state_dtype: \['float32'\], must be None"),
    ({"state_dtype": float}, "Invalid state_dtype: <class 'float'>, must be None"),
    ({"rounding": None}, "Invalid rounding: None, choose from"),
    ({"nonfinite": ["skip"]}, r"Invalid nonfinite: \['skip'\], choose from"),
]

REFUSED_IN_A_GROUP: list[tuple[dict[str, Any], str]] = [
    ({"step": -3}, "Invalid step: -3, must be a whole number >= 0"),
    ({"step": 2.7}, "Invalid step: 2.7, must be a whole number >= 0"),
    ({"step": torch.tensor(2.5)}, r"Invalid step: tensor\(2.5000\), must be a whole number"),
    ({"step": float("inf")}, "Invalid step: inf, must be a whole number"),
    ({"step": 2**63}, "Invalid step: 9223372036854775808, must be"),
    ({"step": True}, "Invalid step: True, must be a whole number"),
    ({"micro_step": "x"}, "Invalid micro_step: 'x', must be a whole number"),
    ({"micro_step": 9, "gradient_accumulation_steps": 2}, "Invalid micro_step: 9, must be < grad"),
    ({"rounding_seed": "x"}, "Invalid rounding_seed: 'x', must be an integer >= 0 and < 2"),
    ({"rounding_seed": 1.5}, "Invalid rounding_seed: 1.5, must be an integer"),
    ({"rounding_seed": -1}, "Invalid rounding_seed: -1, must be an integer"),
    ({"rounding_seed": 2**63}, "Invalid rounding_seed: 9223372036854775808, must be"),
    ({"reference_lr": -1}, "Invalid reference_lr: -1, must be finite and >= 0"),
    ({"reference_lr": "x"}, "Invalid reference_lr: 'x', must be a number"),
    ({"horizon": "x"}, "Invalid horizon value: 'x', must be a number"),
]


@pytest.mark.parametrize(
    ("options", "message"), REFUSED_IN_A_GROUP, ids=[str(each[0]) for each in REFUSED_IN_A_GROUP]
)
def test_illegal_values_of_a_group(kind: Any, options: dict[str, Any], message: str) -> None:
    """What groups have beside the constructor's options is checked too."""
    optimizer = kind([Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": Parameter(torch.ones(1)), **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("pow", 2.0, "Invalid pow: 2.0, must be left out of a group of Lion; LionSF has it"),
        ("agreement", "group", "Invalid agreement: 'group', must be left out of a group of Lion"),
        (
            "use_triton",
            True,
            "Invalid use_triton: True in a parameter group, must be 'fused' there",
        ),
    ],
)
def test_options_that_the_optimizer_has_not(name: str, value: Any, message: str) -> None:
    """Where it is said which options there are, those of LionSF and the constructor are refused."""
    group = LionSF([Parameter(torch.ones(1))]).param_groups[0]
    lion = {key: group[key] for key in group if key not in ("pow", "agreement")}
    _options.check({**lion, name: value})
    with pytest.raises(ValueError, match=message):
        _options.check({**lion, name: value}, known=lion)
    _options.check({**lion, "name": "decayed"}, known=lion)


@pytest.mark.parametrize("number", [np.float32(0.5), np.float64(0.5), Fraction(1, 2), 0, 1])
def test_all_kinds_of_numbers_are_taken(kind: Any, number: Any) -> None:
    """numpy's scalars and whole numbers are numbers."""
    optimizer = kind([Parameter(torch.ones(1))], lr=number, weight_decay=number)
    train(optimizer, 1)
    assert optimizer.param_groups[0]["lr"] == number


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), torch.tensor(3), torch.tensor([3.0])])
def test_counts_of_others_are_read(value: Any) -> None:
    """Other packages save their steps as floats and tensors."""
    found = _options.count("step", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [-1, 2.5, float("nan"), "3", None, True, torch.ones(2)], ids=str)
def test_what_is_no_count(value: Any) -> None:
    """Anything else is refused by the name that it was given under."""
    with pytest.raises(ValueError, match=r"Invalid here: .* must be a whole number >= 0"):
        _options.count("here", value)


@pytest.mark.parametrize(("options", "message"), REFUSED, ids=[str(each[0]) for each in REFUSED])
def test_illegal_options(kind: Any, options: dict[str, Any], message: str) -> None:
    """They are refused for the whole optimizer and in a later group, in torch's words."""
    with pytest.raises(ValueError, match=message):
        kind([Parameter(torch.ones(1))], **options)
    optimizer = kind([Parameter(torch.ones(1))])
    with pytest.raises(ValueError, match=message):
        optimizer.add_param_group({"params": Parameter(torch.ones(1)), **options})
    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pow": -1.0}, "Invalid pow value: -1.0, must be finite and >= 0"),
        ({"pow": None}, "Invalid pow value: None, must be a number"),
        ({"pow": "1"}, "Invalid pow value: '1', must be a number and be finite and >= 0"),
        ({"agreement": "all"}, "Invalid agreement: 'all', choose from: tensor, group, tensor_sig"),
    ],
)
def test_illegal_options_of_lion_sf(options: dict[str, Any], message: str) -> None:
    """What LionSF alone has is checked too."""
    with pytest.raises(ValueError, match=message):
        LionSF([Parameter(torch.ones(1))], **options)


def test_illegal_horizon(kind: Any) -> None:
    """A momentum cannot average fewer than no gradients."""
    with pytest.raises(ValueError, match="Invalid horizon value: -1, must be finite and >= 0"):
        kind([{"params": [Parameter(torch.ones(1))], "horizon": -1}])


@pytest.mark.parametrize("rounding", ["split", "stochastic"])
def test_float16_is_rounded_to_nearest_only(kind: Any, rounding: str) -> None:
    """float16 has too few exponents for a residual; bfloat16 is named as the way out."""
    param = Parameter(torch.ones(1, dtype=torch.float16))
    with pytest.raises(ValueError, match=f"Invalid rounding: '{rounding}' for a float16 parameter"):
        kind([param], rounding=rounding)


def test_complex_momentum_cannot_be_bfloat16(kind: Any) -> None:
    """There is no complex bfloat16."""
    param = Parameter(torch.ones(1, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"Invalid state_dtype: .* for a torch\.complex64"):
        kind([param], state_dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("option", "first", "second"),
    [
        ("global_clipnorm", 1.0, None),
        ("gradient_accumulation_steps", None, 2),
        ("use_ema", True, False),
        ("ema_momentum", 0.5, 0.6),
        ("ema_overwrite_frequency", 2, 3),
    ],
)
def test_what_there_is_once_must_be_equal_in_all_groups(
    kind: Any, option: str, first: Any, second: Any
) -> None:
    """Keras has it once; the message names option and both values, and the group is not added."""
    a, b = Parameter(torch.ones(1)), Parameter(torch.ones(1))
    message = f"Invalid {option}: {second} in one parameter group and {first} in another"
    with pytest.raises(ValueError, match=re.escape(message)):
        kind([{"params": [a], option: first}, {"params": [b], option: second}])
    optimizer = kind([a], **{option: first})
    with pytest.raises(ValueError, match=re.escape(message)):
        optimizer.add_param_group({"params": [b], option: second})
    assert len(optimizer.param_groups) == 1


def test_refused_group_leaves_the_optimizer_usable(kind: Any) -> None:
    """After a refusal another group can be added, with the same parameter."""
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = kind([a], lr=0.1)
    with pytest.raises(ValueError, match="Invalid use_ema"):
        optimizer.add_param_group({"params": [b], "use_ema": True})
    optimizer.add_param_group({"params": [b]})
    train(optimizer, 1)
    assert b.tolist() != [1.0, 1.0]


def test_betas_by_position(kind: Any) -> None:
    """`betas` may follow `lr` without its name, and `weight_decay` may follow `betas`."""
    group = kind(model().parameters(), 1e-3, (0.95, 0.98), 0.5).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-3, (0.95, 0.98), 0.5)


def test_other_options_have_names(kind: Any) -> None:
    """What comes fifth would mean another thing in each Lion there is."""
    with pytest.raises(TypeError, match="positional arguments"):
        kind(model().parameters(), 1e-3, (0.9, 0.99), 0.0, True)


def test_use_triton_is_another_name_of_fused(kind: Any) -> None:
    """It only sets `fused` and is stored nowhere."""
    optimizer = kind(model().parameters(), use_triton=False)
    assert optimizer.param_groups[0]["fused"] is False
    assert "use_triton" not in optimizer.param_groups[0]
    assert "use_triton" not in optimizer.defaults


def test_use_triton_and_fused_must_agree(kind: Any) -> None:
    """Two names with two values are refused."""
    with pytest.raises(ValueError, match="Invalid use_triton: True with fused=False, is another"):
        kind(model().parameters(), use_triton=True, fused=False)


def test_use_triton_is_a_flag(kind: Any) -> None:
    """As fused is."""
    with pytest.raises(ValueError, match="Invalid use_triton: 'x', must be None, True or False"):
        kind(model().parameters(), use_triton="x")


@pytest.mark.parametrize("name", ["fused", "use_triton"])
def test_fused_where_there_is_no_kernel(kind: Any, name: str) -> None:
    """Explicitly asked for, it is an error that names device and dtype."""
    with pytest.raises(RuntimeError, match=r"`fused=True` requires a kernel for torch\.f.* on cpu"):
        kind(model().double().parameters(), **{name: True})


def test_fused_by_default_falls_back_without_a_word(kind: Any) -> None:
    """`fused=None` takes the fastest exact path that there is."""
    optimizer = kind(model().double().parameters())
    train(optimizer, 1)
    assert "path: foreach" in repr(optimizer)


def test_path_is_shown(kind: Any) -> None:
    """`repr` tells the path of each group: the loop where foreach and fused are off."""
    a, b = model().parameters(), model().parameters()
    groups = [{"params": a}, {"params": b, "foreach": False, "fused": False}]
    text = repr(kind(groups, lr=0.125))
    assert text.startswith(kind.__name__)
    assert [line.split()[-1] for line in text.splitlines() if "path:" in line] == [
        "foreach",
        "loop",
    ]
    for shown in ("lr: 0.125", "horizon: None", "weight_decay: 0.0", "Parameter Group 1"):
        assert shown in text


def test_backends() -> None:
    """Each path is there, or the reason why not is."""
    found = backends()
    assert set(found) == {"loop", "foreach", "cpu", "triton"}
    assert found["loop"] == found["foreach"] == "available"
    assert all(isinstance(reason, str) and reason for reason in found.values())


def test_differentiable_takes_the_loop(kind: Any) -> None:
    """Only the loop can be differentiated through."""
    assert "path: loop" in repr(kind([torch.ones(1)], differentiable=True))


def test_names_are_given_for_all_or_none(kind: Any) -> None:
    """Mixed groups are refused in torch's words."""
    with pytest.raises(ValueError, match="all optimizer params should be with/without names"):
        kind([("weight", Parameter(torch.ones(1))), Parameter(torch.ones(1))])


def test_defaults_are_those_of_the_paper(kind: Any) -> None:
    """lr, betas and decay are google/automl's; everything else is off."""
    group = kind(model().parameters()).param_groups[0]
    assert (group["lr"], group["betas"], group["weight_decay"]) == (1e-4, (0.9, 0.99), 0.0)
    assert (group["cautious_factor"], group["rounding"]) == (1.0, "nearest")
    off = ("clipnorm", "clipvalue", "global_clipnorm", "loss_scale_factor", "state_dtype")
    assert all(group[name] is None for name in (*off, "gradient_accumulation_steps", "horizon"))


def test_group_values_win_over_the_optimizers(kind: Any) -> None:
    """An option of a group holds in it alone."""
    a, b = Parameter(torch.ones(2)), Parameter(torch.ones(2))
    optimizer = kind([{"params": a, "lr": 0.5}, {"params": b}], lr=0.25)
    train(optimizer, 1)
    moved = [(1 - param).abs().tolist() for param in parameters(optimizer)]
    assert moved == [[0.5, 0.5], [0.25, 0.25]]


def test_options_of_other_lions_are_refused_in_a_group() -> None:
    """A Lion does not become half a LionSF, and `use_triton` is no option of a group."""
    for options in ({"agreement": "tensor"}, {"pow": 2.0}, {"use_triton": True}):
        with pytest.raises(ValueError, match=f"Invalid .*{next(iter(options))}"):
            optim.Lion([{"params": [Parameter(torch.ones(2))], **options}])


def test_numbers_of_numpy_become_numbers(kind: Any) -> None:
    """They would compute in their own precision, and no weights-only file takes them."""
    numpy = pytest.importorskip("numpy")
    given = {"lr": numpy.float32(0.5), "loss_scale_factor": numpy.float64(3.0)}
    group = kind(model().parameters(), **given, betas=(numpy.float32(0.5), 0.75)).param_groups[0]
    assert [type(group[name]) for name in given] == [float, float]
    assert group["betas"] == (0.5, 0.75)
    assert all(type(beta) is float for beta in group["betas"])

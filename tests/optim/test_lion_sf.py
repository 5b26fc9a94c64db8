"""What the four kinds of agreement count."""

from __future__ import annotations

import pytest
import torch

from liontool.optim import LionSF


def _moved(agreement: str, rows: list[list[float]]) -> list[float]:
    """How far each parameter goes in one step of lr 1, given gradients against a momentum of +1."""
    params = [torch.nn.Parameter(torch.zeros(len(row))) for row in rows]
    optimizer = LionSF(params, lr=1.0, agreement=agreement)
    optimizer.init_state()
    for param, row in zip(params, rows, strict=True):
        optimizer.state[param]["exp_avg"].fill_(1.0)
        param.grad = torch.tensor(row)
    optimizer.step()
    return [param.detach().abs().max().item() for param in params]


# Gradients small enough that the sign of the update stays that of the momentum.
ALL, MOST, NONE, ZEROS = [1.0] * 4, [1.0, 1.0, 1.0, -1.0], [-1.0] * 4, [1.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [
        ("tensor", [1.0, 0.5, 1.0, 0.5]),
        ("tensor_signed", [1.0, 0.5, 0.0, 1.0]),
        ("group", [0.0] * 4),  # 8 of 16
        ("group_signed", [2 * 8 / 13 - 1] * 4),  # 8 of 13
    ],
)
def test_agreement(agreement: str, expected: list[float]) -> None:
    """Each mode counts its own elements over its own range."""
    assert _moved(agreement, [ALL, MOST, NONE, ZEROS]) == pytest.approx(expected)


@pytest.mark.parametrize("agreement", ["tensor_signed", "group_signed"])
def test_scale_is_one_when_nothing_counts(agreement: str) -> None:
    """Momentum without any gradient moves on at full speed in the signed forms."""
    assert _moved(agreement, [[0.0] * 4]) == [1.0]


def test_group_counts_before_anything_moves() -> None:
    """All parameters of a group get one scale, from the state before the step."""
    assert _moved("group", [ALL, ALL, MOST]) == pytest.approx([2 * 11 / 12 - 1] * 3)


def test_empty_tensor_in_a_group() -> None:
    """A tensor without elements neither fails nor counts."""
    assert LionSF([torch.nn.Parameter(torch.zeros(0))]).param_groups[0]["agreement"] == "tensor"
    params = [torch.nn.Parameter(torch.zeros(0)), torch.nn.Parameter(torch.zeros(2))]
    optimizer = LionSF(params, lr=1.0)
    for param in params:
        param.grad = torch.ones_like(param)
    optimizer.step()
    assert params[1].tolist() == [-1.0, -1.0]


def test_unknown_agreement_is_refused() -> None:
    """The message lists the choices."""
    with pytest.raises(ValueError, match="Invalid agreement: 'module', choose from: tensor, group"):
        LionSF([torch.nn.Parameter(torch.zeros(1))], agreement="module")


def test_negative_pow_is_refused() -> None:
    """A scale of 0 has no negative power."""
    with pytest.raises(ValueError, match=r"Invalid pow value: -1.0, must be finite and >= 0"):
        LionSF([torch.nn.Parameter(torch.zeros(1))], pow=-1.0)

"""Single fields, and statements about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.fields import FieldReader


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("groups.1.weight_decay", 0.0),
        ("groups.0.betas", (0.9, 0.999)),
        ("groups.*.weight_decay", [0.1, 0.0]),
        ("optimizers.0.kind", "AdamW"),
        ("optimizers.0.groups.0.initial_lr", 3e-4),
        ("scheduler.0.last_epoch", 120),
        ("schedulers.0.T_max", 200),
        ("step", 120),
        ("epoch", 3),
        ("framework", "plain"),
        ("files.0.container", "torch zip"),
    ],
)
def test_values(run: Path, field: str, expected: Any) -> None:
    """What people ask for has a short path; everything else that of the summary."""
    assert FieldReader(run).value(field) == expected


def test_learning_rates_are_exact(run: Path) -> None:
    """A value is the very number in the file."""
    lr = torch.load(run)["optimizer"]["param_groups"][0]["lr"]
    assert FieldReader(run).value("groups.0.lr") == lr


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("groups.0.lrx", r"no field 'groups.0.lrx'; groups.0 has: parameters, weight_decay, lr, "),
        ("groups.7.lr", r"no field 'groups.7'; groups has: 0, 1"),
        ("groups.0.lr.x", r"no field 'groups.0.lr.x': groups.0.lr has no fields in it"),
        ("nothing", r"no field 'nothing'; the checkpoint has: schema, path, "),
    ],
)
def test_unknown_fields(run: Path, field: str, message: str) -> None:
    """A field that is not there is answered with those that are."""
    with pytest.raises(ValueError, match=message):
        FieldReader(run).value(field)


def test_several_optimizers(tmp_path: Path) -> None:
    """Of several optimizers each is asked by its position; `groups` alone would be a guess."""
    states = {}
    for name, lr in (("first", 0.1), ("second", 0.2)):
        states[name] = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))], lr=lr).state_dict()
    torch.save(states, tmp_path / "two.pt")
    reader = FieldReader(tmp_path / "two.pt")
    assert reader.value("optimizers.1.groups.0.lr") == 0.2
    with pytest.raises(ValueError, match=r"no field 'groups'; the checkpoint has: .*optimizers"):
        reader.value("groups.0.lr")


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("groups.1.weight_decay == 0", True),
        ("groups.0.lr < 1e-3", True),
        ("groups.0.lr<1e-9", False),
        ("groups.*.lr <= 3e-4", True),
        ("groups.*.weight_decay > 0", False),
        ("groups.0.betas == [0.9, 0.999]", True),
        ("groups.0.amsgrad == false", True),
        ("groups.0.amsgrad == False", True),
        ("groups.0.amsgrad != False", False),
        ("groups.0.amsgrad == True", False),
        ("groups.0.amsgrad != true", True),
        ("groups.0.foreach == None", True),
        ("groups.0.foreach != None", False),
        ("groups.0.foreach != null", False),
        ("groups.0.lr != None", True),
        ("framework == plain", True),
        ("framework != 'plain'", False),
        ("optimizers.0.kind >= Adam", True),
        ("groups.0.lr < nan", False),
        ("groups.0.lr < inf", True),
    ],
)
def test_statements(run: Path, text: str, holds: bool) -> None:
    """Numbers, words, lists and truth values are compared; nothing is ever evaluated."""
    assert FieldReader(run).check(text).holds is holds


def test_what_does_not_hold_is_named(run: Path) -> None:
    """Field, value and bound stand in one line, of the field that it does not hold for."""
    found = FieldReader(run).check("groups.*.weight_decay > 0")
    assert str(found) == "groups.1.weight_decay is 0.0, which is not > 0"


@pytest.mark.parametrize("text", ["", "groups.0.lr", "< 3", "groups.0.lr <", "print(1)"])
def test_no_statements(run: Path, text: str) -> None:
    """What is no statement is refused, with an example."""
    with pytest.raises(ValueError, match=r"--assert takes FIELD OPERATOR VALUE such as 'groups"):
        FieldReader(run).check(text)


@pytest.mark.parametrize("text", ["groups.0.lr < high", "groups.0.betas < 3", "step < true"])
def test_no_order(run: Path, text: str) -> None:
    """What cannot be compared is neither true nor false."""
    with pytest.raises(ValueError, match=r"has no order beside .*: use == or !="):
        FieldReader(run).check(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "groups.0.amsgrad != no",
            r"^groups\.0\.amsgrad is false, no word: compare it with true, f",
        ),
        ("groups.*.amsgrad == FALSE", r"^groups\.0\.amsgrad is false, no word"),
        ("groups.0.foreach != none", r"^groups\.0\.foreach is null, no word: .* or null$"),
        ("groups.0.foreach < high", r"^groups\.0\.foreach is null, no word"),
    ],
)
def test_words_beside_truth_values(run: Path, text: str, message: str) -> None:
    """A word beside a truth value or null is a slip, and no answer."""
    with pytest.raises(ValueError, match=message):
        FieldReader(run).check(text)


def test_the_longest_name_is_taken_first(tmp_path: Path) -> None:
    """A name with dots is meant before a path through a shorter one."""
    state = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))]).state_dict()
    state["param_groups"][0].update({"h": {"0.lr": 1, "0": {"lr": 2}}, "h.0": {"lr": 3}})
    torch.save(state, tmp_path / "a.pt")
    reader = FieldReader(tmp_path / "a.pt")
    assert reader.value("groups.0.h.0.lr") == 3
    state["param_groups"][0].pop("h.0")
    torch.save(state, tmp_path / "a.pt")
    assert FieldReader(tmp_path / "a.pt").value("groups.0.h.0.lr") == 1

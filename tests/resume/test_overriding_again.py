"""An override is made once: what happened to the value since then stays at later starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, CyclicLR, ReduceLROnPlateau

from liontool.errors import FormatError
from liontool.resume.overrides import Overrides
from support.run_parts import Parts, net


def plateau(optimizer: Any) -> Any:
    return ReduceLROnPlateau(optimizer, factor=0.5, patience=0, min_lr=1e-4)


def parts(scheduler: Any = None) -> Parts:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
    return Parts(model, optimizer, None if scheduler is None else scheduler(optimizer))


def rate(one: Parts) -> float:
    return float(one.optimizer.param_groups[0]["lr"])


def goes_on(checkpoint: Path, scheduler: Any = None, **overrides: Any) -> Parts:
    found = parts(scheduler)
    found.resume(checkpoint, **overrides)
    return found


def test_reductions_stay(tmp_path: Path) -> None:
    """A plateau has lowered the learning rate since the override was made."""
    checkpoint = parts(plateau).save(tmp_path / "run")
    first = goes_on(checkpoint, plateau, lr=0.2).train(0, 3)
    assert rate(first) == pytest.approx(0.05)
    second = goes_on(first.save(tmp_path / "second"), plateau, lr=0.2)
    assert rate(second) == pytest.approx(0.05)
    third = goes_on(second.save(tmp_path / "third"), plateau, lr=0.2)
    assert third.scheduler.state_dict() == first.scheduler.state_dict()
    assert first.lines == second.lines == third.lines == []


def test_reductions_stay_after_a_fresh_start(tmp_path: Path) -> None:
    """So they do where the first start had the override."""
    first = parts(plateau)
    first.resumed = first.census()
    first.resumed.begin({"lr": 0.2})
    checkpoint = first.train(0, 3).save(tmp_path / "run")
    assert rate(goes_on(checkpoint, plateau, lr=0.2)) == rate(first) == pytest.approx(0.05)


def test_another_value(tmp_path: Path) -> None:
    """It moves what is in force in proportion, reductions and all."""
    first = goes_on(parts(plateau).save(tmp_path / "run"), plateau, lr=0.2).train(0, 3)
    second = goes_on(first.save(tmp_path / "second"), plateau, lr=0.4)
    assert rate(second) == pytest.approx(0.1)
    assert second.scheduler.min_lrs == pytest.approx([4e-4])


def test_another_value_of_a_curve(tmp_path: Path) -> None:
    """Where the base is kept, that becomes the value."""

    def cosine(optimizer: Any) -> Any:
        return CosineAnnealingLR(optimizer, 20)

    first = goes_on(parts(cosine).save(tmp_path / "run"), cosine, lr=0.2).train(0, 3)
    second = goes_on(first.save(tmp_path / "second"), cosine, lr=0.4)
    assert second.scheduler.base_lrs == pytest.approx([0.4])
    assert rate(second) == pytest.approx(2 * rate(first))


def test_another_value_between(tmp_path: Path) -> None:
    """An override that is left out stays in force, and is said."""
    first = goes_on(parts().save(tmp_path / "run"), lr=0.2)
    second = goes_on(first.save(tmp_path / "second"))
    assert rate(second) == 0.2
    assert second.lines == [
        "optimizer.lr is 0.2, the checkpoint's, and not 0.1, as constructed; "
        "to change it: overrides=dict(lr=...)"
    ]
    second.optimizer.param_groups[0]["lr"] /= 4
    assert rate(goes_on(second.save(tmp_path / "third"), lr=0.2)) == 0.05


def test_other_names(tmp_path: Path) -> None:
    """What the program does to any value since then stays."""
    first = goes_on(parts().save(tmp_path / "run"), momentum=0.75)
    first.optimizer.param_groups[0]["momentum"] = 0.8
    second = goes_on(first.save(tmp_path / "second"), momentum=0.75)
    assert second.optimizer.param_groups[0]["momentum"] == 0.8
    third = goes_on(first.save(tmp_path / "third"), momentum=0.85)
    assert third.optimizer.param_groups[0]["momentum"] == 0.85


def test_rates_of_a_scheduler_are_not_told(tmp_path: Path) -> None:
    """They were moved with the learning rate, which is no news."""

    def cyclic(optimizer: Any) -> Any:
        return CyclicLR(optimizer, 0.01, 0.1, 5)

    first = goes_on(parts(cyclic).save(tmp_path / "run"), cyclic, lr=0.2)
    assert goes_on(first.save(tmp_path / "second"), cyclic, lr=0.2).lines == []


def test_a_scheduler_that_is_new(tmp_path: Path) -> None:
    """It brings its own learning rate, so the override is made again."""
    first = goes_on(parts().save(tmp_path / "run"), lr=0.2)
    second = parts(plateau)
    second.resume(first.save(tmp_path / "second"), allow="scheduler", lr=0.2)
    assert rate(second) == 0.2


def test_several_values() -> None:
    """Tuples and lists are one value, in a checkpoint too."""
    assert Overrides({"betas": (0.9, 0.99)}, {"betas": [0.9, 0.99]}).new == {}
    assert Overrides({"betas": [0.9, 0.9]}, {"betas": [0.9, 0.99]}).new == {"betas": [0.9, 0.9]}


def test_not_what_is_written(tmp_path: Path) -> None:
    """Another layout in run.json is refused."""
    census = parts().census()
    with pytest.raises(FormatError, match=r"^run.json: 'overrides' is not what liontool writes"):
        census.check({**census.facts(), "overrides": [1]}, allow=())

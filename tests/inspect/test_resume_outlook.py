"""What `summarise` says of a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.summary import OptimizerSummary, summarise

# Schedulers are stepped here without their optimizers.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

SCHEDULERS = torch.optim.lr_scheduler


def adamw(names: bool = False) -> torch.optim.AdamW:
    """Two groups after a step, the second with a tenth of the learning rate."""
    params = [torch.nn.Parameter(torch.ones(3)) for _ in range(2)]
    torch.stack(params).sum().backward()
    listed: Any = [(f"layer{i}", p) for i, p in enumerate(params)] if names else params
    optimizer = torch.optim.AdamW([{"params": [p]} for p in listed], lr=0.01)
    optimizer.param_groups[1]["lr"] = 0.001
    optimizer.step()
    return optimizer


def resumed(
    folder: Path, optimizer: torch.optim.Optimizer, scheduler: Any = None, steps: int = 1
) -> OptimizerSummary:
    state = {"optimizer": optimizer.state_dict()}
    if scheduler is not None:
        for _ in range(steps):
            scheduler.step()
        state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    torch.save(state, folder / "a.pt")
    (found,) = summarise(folder / "a.pt").optimizers
    return found


def said(found: OptimizerSummary, words: str) -> str:
    """The one sentence that has these words in it."""
    (sentence,) = (sentence for sentence in found.resume if words in sentence)
    return sentence


def test_the_file_wins(tmp_path: Path) -> None:
    """The rates of the next step are those of the file, from the lowest group to the highest."""
    sentence = said(resumed(tmp_path, adamw()), "win over")
    assert sentence.startswith("lr, betas and weight_decay of the file win over those in the code")
    assert sentence.endswith("the next step is made with lr 0.001 to 0.01")


def test_the_order_matters_without_names(tmp_path: Path) -> None:
    """State is matched by position; with names in the file nothing is said."""
    assert said(resumed(tmp_path, adamw()), "by position")
    assert not any("by position" in text for text in resumed(tmp_path, adamw(names=True)).resume)


def test_no_scheduler(tmp_path: Path) -> None:
    """Without a scheduler the rate stays."""
    assert said(resumed(tmp_path, adamw()), "lr stays unless the script changes it")


@pytest.mark.parametrize(
    ("make", "source", "ending"),
    [
        (lambda o: SCHEDULERS.StepLR(o, 10), "multiplies the lr that is in the group",
         "falls to 1e-07 to 1e-06 and goes on"),
        (lambda o: SCHEDULERS.LinearLR(o, 0.5, total_iters=4), "multiplies the lr",
         "by its step 4 lr rises to 0.001 to 0.01 and stays there"),
        (lambda o: SCHEDULERS.CosineAnnealingLR(o, 10), "until step T_max, then by base_lrs",
         "by its step 10 lr falls to 0 and rises again after that"),
        (lambda o: SCHEDULERS.CosineAnnealingWarmRestarts(o, 10), "computes it from base_lrs",
         "and starts again"),
        (lambda o: SCHEDULERS.OneCycleLR(o, 1.0, total_steps=20), "initial_lr, max_lr and min_lr",
         "by its step 5 lr rises to 1, by 19 it falls to 4e-06; beyond step 20 torch raises"),
        (lambda o: SCHEDULERS.CyclicLR(o, 0.1, 1.0, 5), "from its base_lrs and max_lrs",
         "rises to 1, by 20 it falls to 0.1 and starts again"),
        (lambda o: torch.optim.swa_utils.SWALR(o, 0.5, 4), "from the group's lr to its swa_lr",
         "by its step 4 lr rises to 0.5 and stays there"),
    ],
    ids=["step", "linear", "cosine", "restarts", "one-cycle", "cyclic", "swa"],
)  # fmt: skip
def test_where_the_next_rate_comes_from(
    make: Any, source: str, ending: str, tmp_path: Path
) -> None:
    """Each class says from what it computes the next rate, and where its curve ends."""
    optimizer = adamw()
    found = resumed(tmp_path, optimizer, make(optimizer))
    assert said(found, source).startswith("then ")
    assert said(found, "by its step").find(ending) >= 0


def test_the_next_rate_is_that_of_torch(tmp_path: Path) -> None:
    """The rate that the scheduler will set is named."""
    optimizer = adamw()
    scheduler = SCHEDULERS.ExponentialLR(optimizer, 0.5)
    found = resumed(tmp_path, optimizer, scheduler)
    assert "ExponentialLR sets lr 0.00025 to 0.0025;" in said(found, "then Exp")


def test_the_part_of_a_sequence_whose_turn_it_is(tmp_path: Path) -> None:
    """In a SequentialLR the active part speaks now, and the last one of the end."""
    optimizer = adamw()
    parts = [SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=5), SCHEDULERS.StepLR(optimizer, 100)]
    found = resumed(tmp_path, optimizer, SCHEDULERS.SequentialLR(optimizer, parts, [5]))
    assert "SequentialLR sets" in said(found, "by LinearLR; it multiplies")
    assert "goes on" in said(found, "by its step")


def test_at_its_end(tmp_path: Path) -> None:
    """A schedule that is over holds its rate."""
    optimizer = adamw()
    scheduler = SCHEDULERS.LinearLR(optimizer, 0.5, total_iters=2)
    sentence = said(resumed(tmp_path, optimizer, scheduler, 5), "is at its end")
    assert sentence == "LinearLR is at its end: lr stays 0.001 to 0.01"


def test_code_sets_the_rate(tmp_path: Path) -> None:
    """A LambdaLR goes by base_lrs, so that the group's own rate counts for nothing."""
    optimizer = adamw()
    scheduler = SCHEDULERS.LambdaLR(optimizer, lambda step: 1.0)
    found = resumed(tmp_path, optimizer, scheduler)
    assert said(found, "LambdaLR computes it from base_lrs, whatever lr the group has")


def test_beta1_is_cycled(tmp_path: Path) -> None:
    """OneCycleLR sets beta1 as well."""
    optimizer = adamw()
    scheduler = SCHEDULERS.OneCycleLR(optimizer, 1.0, total_steps=20)
    sentence = said(resumed(tmp_path, optimizer, scheduler), "beta1")
    assert sentence.endswith("at every step, between 0.85 and 0.95")


def test_curves_and_findings_are_in_the_document(tmp_path: Path) -> None:
    """JSON has the points of the curve, the sentences, and the findings with severities."""
    optimizer = adamw()
    resumed(tmp_path, optimizer, SCHEDULERS.CosineAnnealingLR(optimizer, 10))
    document = summarise(tmp_path / "a.pt").to_dict()
    (found,) = document["optimizers"]
    curve = found["schedulers"][0]["curve"]
    assert (curve["position"], curve["span"], curve["then"]) == (1, 9, "goes on")
    assert curve["curves"][1]["groups"] == [1]
    assert curve["curves"][1]["steps"] == list(range(10))
    assert found["resume"][0].startswith("lr, betas")
    torch.save(optimizer.state_dict(), tmp_path / "a.pt")
    (finding,) = summarise(tmp_path / "a.pt").to_dict()["findings"]
    assert (finding["id"], finding["severity"]) == ("scheduler-missing", "warning")

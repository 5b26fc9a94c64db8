"""What `summarise` says of a resume."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.curve_words import Stretch, by_group, stretches
from liontool.inspect.lr_curve import GroupCurve
from liontool.inspect.summary import OptimizerSummary, summarise
from support import schedules

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
    """The rates of the next step are those of the file, group by group."""
    sentence = said(resumed(tmp_path, adamw()), "win over")
    assert sentence.startswith("lr, betas and weight_decay of the file win over those in the code")
    assert sentence.endswith("the next step is made with lr 0.01 and 0.001 (by group)")


def test_the_order_matters_without_names(tmp_path: Path) -> None:
    """Torch matches state by position, with names in the file as well."""
    assert "as the file has no names: build" in said(resumed(tmp_path, adamw()), "by position")
    named = adamw(names=True)
    sentence = said(resumed(tmp_path, named), "by position")
    assert sentence.endswith(
        "whatever the names in the file: build the groups in the order of before"
    )
    other = adamw(names=True)
    other.param_groups.reverse()
    other.load_state_dict(named.state_dict())
    assert [group["lr"] for group in other.param_groups] == [0.01, 0.001]
    assert [group["param_names"] for group in other.param_groups] == [["layer0"], ["layer1"]]
    (first,) = other.param_groups[0]["params"]
    assert other.state[first]["step"] == 1.0


def test_momentum_of_the_file_wins_as_well(tmp_path: Path) -> None:
    """SGD has momentum where AdamW has betas."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
    optimizer.step()
    assert said(resumed(tmp_path, optimizer), "lr, momentum and weight_decay of the file win")


def test_no_scheduler(tmp_path: Path) -> None:
    """Without a scheduler the rate stays."""
    assert said(resumed(tmp_path, adamw()), "lr stays unless the script changes it")


@pytest.mark.parametrize(
    ("make", "then", "ending"),
    [
        (lambda o: SCHEDULERS.StepLR(o, 10),
         "lr 0.01 and 0.001 (by group), from the group's lr: a change of lr alone lasts",
         "by its step 40 lr falls to 1e-06 and 1e-07 (by group) and goes on"),
        (lambda o: SCHEDULERS.LinearLR(o, 0.5, total_iters=4), "from the group's lr: ",
         "by its step 4 lr rises to 0.01 and 0.001 (by group) and stays there"),
        (lambda o: SCHEDULERS.CosineAnnealingLR(o, 10), "from the group's lr: a change of lr "
         "alone lasts until step 10", "by its step 10 lr falls to 0 and rises again after that"),
        (lambda o: SCHEDULERS.CosineAnnealingLR(o, 2), "from its eta_min: a change of lr alone "
         "lasts one step", "by its step 2 lr falls to 0 and rises again after that"),
        (lambda o: SCHEDULERS.CosineAnnealingWarmRestarts(o, 10), "from base_lrs: a change of lr "
         "alone lasts one step", "by its step 9 lr falls to 0.000244717 and 2.44717e-05 (by "
         "group), by 10 it rises to 0.01 and 0.001 (by group) and goes on in cycles"),
        (lambda o: SCHEDULERS.OneCycleLR(o, 1.0, total_steps=20),
         "from the group's initial_lr, max_lr and min_lr: a change of lr alone lasts one step",
         "by its step 5 lr rises to 1, by 19 it falls to 4e-06; beyond step 20 torch raises"),
        (lambda o: SCHEDULERS.CyclicLR(o, 0.1, 1.0, 5), "from its base_lrs and max_lrs: a change",
         "by its step 5 lr rises to 1, by 10 it falls to 0.1 and goes on in cycles"),
        (lambda o: torch.optim.swa_utils.SWALR(o, 0.5, 4), "from the group's lr and swa_lr: a "
         "change of lr alone lasts until step 4", "by its step 4 lr rises to 0.5 and stays there"),
        (lambda o: torch.optim.swa_utils.SWALR(o, 0.005, 4), "from the group's lr and swa_lr",
         "by its step 4 lr comes to 0.005 and stays there"),
        (lambda o: torch.optim.swa_utils.SWALR(o, 0.005, 2), "from the group's swa_lr: a change "
         "of lr alone lasts one step", "by its step 2 lr comes to 0.005 and stays there"),
        (lambda o: SCHEDULERS.StepLR(o, 10, 1.0), "StepLR sets lr",
         "by its step 41 lr is 0.01 and 0.001 (by group) and goes on"),
    ],
    ids=["step", "linear", "cosine", "cosine-turns", "restarts", "one-cycle", "cyclic", "swa",
         "swa-both-ways", "swa-over", "still"],
)  # fmt: skip
def test_where_the_next_rate_comes_from(make: Any, then: str, ending: str, tmp_path: Path) -> None:
    """Each class says from what it computes the next rate, and where its curve ends."""
    optimizer = adamw()
    found = resumed(tmp_path, optimizer, make(optimizer))
    assert said(found, then).startswith("then ")
    assert ending in said(found, "by its step")


def test_a_cosine_that_has_turned(tmp_path: Path) -> None:
    """Behind T_max the change lasts until the next time that the rate is at its lowest."""
    optimizer = adamw()
    found = resumed(tmp_path, optimizer, SCHEDULERS.CosineAnnealingLR(optimizer, 10), 14)
    assert said(found, "alone lasts until step 30")
    assert said(found, "by its step 20 lr rises to 0.01 and 0.001 (by group) and falls again")


def part_of_torch(scheduler: Any) -> str:
    """The class that makes the next step of a SequentialLR, as torch finds it."""
    while hasattr(scheduler, "_milestones"):
        step = scheduler.last_epoch + 1
        scheduler = scheduler._schedulers[bisect_right(scheduler._milestones, step)]
    return type(scheduler).__name__


def claim(sentence: str, position: int) -> float:
    """For how many steps a sentence says that a change lasts."""
    found = re.search(r"a change of lr alone lasts( one step| until step (\d+)|)($|,)", sentence)
    assert found, sentence
    return int(found[2]) - position if found[2] else 1 if found[1] else math.inf


@pytest.mark.parametrize("make", schedules.MAKERS, ids=lambda make: make.__name__)
def test_sentences_say_what_torch_does(make: schedules.Make, tmp_path: Path) -> None:
    """Of every class and around milestones: the next rate, the part, how long a change lasts."""
    path = tmp_path / "a.pt"
    for position in (0, 4, 5, 12, 14, 19, 24, 39, 43, 57):
        optimizer, scheduler = schedules.stepped(make, position)
        schedules.save(optimizer, scheduler, path)
        (found,) = summarise(path).optimizers
        sentence = said(found, "a change of lr alone")
        left = schedules.LAST - 1 - position
        rates, changed = (schedules.rates_of(make, path, by, left) for by in (1.0, 0.5))
        for n, pair in enumerate(zip(rates, changed, strict=True), start=1):
            seen = schedules.shows(*pair)
            assert seen in (None, n < claim(sentence, position)), f"{position}, {n}: {sentence}"
        if "is at its end" not in sentence:
            assert f"sets lr {by_group(rates[0])}, " in sentence
        if hasattr(scheduler, "_milestones"):
            assert f"by {part_of_torch(scheduler)} from" in sentence or "at its end" in sentence


def test_the_part_of_a_sequence_whose_turn_it_is(tmp_path: Path) -> None:
    """In a SequentialLR the part that makes the next step speaks, and the last one of the end."""
    optimizer = adamw()
    parts = [SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=5), SCHEDULERS.StepLR(optimizer, 100)]
    sequence = SCHEDULERS.SequentialLR(optimizer, parts, [5])
    found = resumed(tmp_path, optimizer, sequence)
    assert said(found, "by LinearLR from the group's lr: a change of lr alone lasts until step 5")
    assert "goes on" in said(found, "by its step")
    found = resumed(tmp_path, optimizer, sequence, 3)
    assert said(found, "by StepLR from base_lrs: a change of lr alone lasts one step")
    found = resumed(tmp_path, optimizer, sequence, 1)
    assert said(found, "by StepLR from the group's lr").endswith("a change of lr alone lasts")


@pytest.mark.parametrize(
    ("second", "says"),
    [
        (lambda o: SCHEDULERS.ExponentialLR(o, 0.9), "a change of lr alone lasts"),
        (lambda o: SCHEDULERS.CosineAnnealingLR(o, 9),
         "a change of lr alone lasts until step 9, as CosineAnnealingLR wins"),
        (lambda o: SCHEDULERS.CyclicLR(o, 0.1, 1.0, 5),
         "a change of lr alone lasts one step, as CyclicLR wins"),
    ],
    ids=["both-multiply", "cosine", "cyclic"],
)  # fmt: skip
def test_who_wins_in_a_chain(second: Any, says: str, tmp_path: Path) -> None:
    """A ChainedScheduler names its parts, and the one that sets lr whatever the others do."""
    optimizer = adamw()
    parts = [SCHEDULERS.LinearLR(optimizer, total_iters=5), second(optimizer)]
    found = resumed(tmp_path, optimizer, SCHEDULERS.ChainedScheduler(parts))
    sentence = said(found, "then ChainedScheduler sets lr ")
    assert f"by LinearLR and {type(parts[1]).__name__} in turn: " in sentence
    assert sentence.endswith(says)


def test_a_long_chain_and_one_in_a_sequence(tmp_path: Path) -> None:
    """Of many parts the first are named; a chain may be the first part of a sequence."""
    optimizer = adamw()
    chain = SCHEDULERS.ChainedScheduler([SCHEDULERS.ExponentialLR(optimizer, 0.9)] * 5)
    words = "by ExponentialLR, ExponentialLR, ExponentialLR and 2 more in turn: "
    assert said(resumed(tmp_path, optimizer, chain), words)
    parts = [SCHEDULERS.ChainedScheduler([SCHEDULERS.ExponentialLR(optimizer, 0.9)]),
             SCHEDULERS.StepLR(optimizer, 3)]  # fmt: skip
    found = resumed(tmp_path, optimizer, SCHEDULERS.SequentialLR(optimizer, parts, [5]))
    sentence = said(found, "then SequentialLR sets lr ")
    assert sentence.endswith("by ExponentialLR in turn: a change of lr alone lasts until step 5")


def test_at_its_end(tmp_path: Path) -> None:
    """A schedule that is over holds its rate."""
    optimizer = adamw()
    scheduler = SCHEDULERS.LinearLR(optimizer, 0.5, total_iters=2)
    sentence = said(resumed(tmp_path, optimizer, scheduler, 5), "is at its end")
    assert sentence == (
        "LinearLR is at its end: lr stays 0.01 and 0.001 (by group); a change of lr alone lasts"
    )


def test_the_last_steps_of_one_cycle(tmp_path: Path) -> None:
    """One step that torch takes is told as such, and none as an error."""
    optimizer = adamw()
    scheduler = SCHEDULERS.OneCycleLR(optimizer, 1.0, total_steps=20)
    found = resumed(tmp_path, optimizer, scheduler, 19)
    assert said(found, "then OneCycleLR sets lr ")
    assert said(found, "beyond step 20 torch raises an error")
    found = resumed(tmp_path, optimizer, scheduler)
    assert said(found, "OneCycleLR is at its last step: torch raises an error if it is stepped")
    assert not any("beyond" in sentence for sentence in found.resume)


def test_a_metric_sets_the_rate(tmp_path: Path) -> None:
    """ReduceLROnPlateau multiplies the group's rate, after a patience."""
    optimizer = adamw()
    scheduler = SCHEDULERS.ReduceLROnPlateau(optimizer, factor=0.2, patience=3)
    scheduler.step(1.0)
    found = resumed(tmp_path, optimizer, scheduler, 0)
    assert said(found, "ReduceLROnPlateau keeps lr until its metric has not improved for more than "
                "3 steps, then multiplies it by 0.2: a change of lr alone lasts")  # fmt: skip
    state = torch.load(tmp_path / "a.pt")
    state["scheduler"]["factor"] = "x"
    torch.save(state, tmp_path / "a.pt")
    (damaged,) = summarise(tmp_path / "a.pt").optimizers
    assert said(damaged, "then ReduceLROnPlateau moves the group's lr as its metric goes")


def test_many_turns(tmp_path: Path) -> None:
    """Two turns are told, then the end."""
    optimizer = adamw()
    parts = [SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=5),
             SCHEDULERS.CosineAnnealingLR(optimizer, 10),
             SCHEDULERS.LinearLR(optimizer, 0.1, total_iters=5)]  # fmt: skip
    optimizer.param_groups[1]["lr"] = 0.01
    found = resumed(tmp_path, optimizer, SCHEDULERS.SequentialLR(optimizer, parts, [5, 15]))
    words = "lr rises to 0.01 and 0.001 (by group), by 14 it falls to "
    assert said(found, words).endswith(
        "and turns again; by 20 it is 0.01 and 0.001 (by group) and stays there"
    )


def test_rounding_is_no_turn() -> None:
    """A rate that stays but for its last digit neither rises nor falls."""
    rates = (0.1, 0.1 + 1e-17, 0.1 * (1 + 1e-15), 0.1, 0.2, 0.2 * (1 - 1e-15))
    assert stretches(GroupCurve((0,), tuple(range(6)), rates)) == (Stretch(4, falls=False),)
    assert stretches(GroupCurve((0,), (0,), (None,))) == ()


def test_many_groups_have_a_range() -> None:
    """Up to three rates are listed, of more the lowest and the highest stand."""
    assert by_group([0.1, 0.1]) == "0.1"
    assert by_group([0.1, 0.3, None, 0.2]) == "0.1, 0.3 and 0.2 (by group)"
    assert by_group([0.1, 0.4, 0.3, 0.2]) == "between 0.1 and 0.4 (by group)"
    assert by_group([None]) == "unknown"


@pytest.mark.parametrize("make", [SCHEDULERS.LambdaLR, SCHEDULERS.MultiplicativeLR])
def test_code_sets_the_rate(make: Any, tmp_path: Path) -> None:
    """LambdaLR and MultiplicativeLR cannot be told apart: what holds for each is said."""
    optimizer = adamw()
    found = resumed(tmp_path, optimizer, make(optimizer, lambda step: 1.0))
    sentence = said(found, "then code sets lr: LambdaLR goes by base_lrs")
    assert "MultiplicativeLR by the group's lr, so that it lasts" in sentence


def test_code_in_a_sequence(tmp_path: Path) -> None:
    """A part that is code says so, and nothing of how long a change lasts."""
    optimizer = adamw()
    parts = [SCHEDULERS.LambdaLR(optimizer, lambda step: 1.0), SCHEDULERS.StepLR(optimizer, 9)]
    found = resumed(tmp_path, optimizer, SCHEDULERS.SequentialLR(optimizer, parts, [5]))
    assert said(found, "then SequentialLR sets lr by code that is not in the file, that of Lambda")
    assert not any("alone" in sentence for sentence in found.resume)


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

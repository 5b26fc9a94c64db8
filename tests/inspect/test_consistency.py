"""`consistency`: what does not fit is found, and what fits is left in peace."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from liontool.inspect.consistency import consistency
from liontool.inspect.findings import KINDS, Finding
from liontool.inspect.opening import opened
from liontool.optim import Lion

# Schedulers are stepped here without their optimizers.
pytestmark = pytest.mark.filterwarnings("ignore:Detected call of")

State = dict[str, Any]


def trained(
    make: Callable[..., torch.optim.Optimizer] = torch.optim.AdamW, **options: Any
) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    """Two groups after three steps."""
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 2)
    groups = [{"params": [model.weight]}, {"params": [model.bias], "weight_decay": 0.0}]
    optimizer = make(groups, **{"lr": 0.01, **options})
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(5, 4)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def with_scheduler(optimizer: torch.optim.Optimizer, scheduler: Any = None) -> State:
    """What a script saves after a step of the scheduler, a cosine unless given."""
    scheduler = scheduler or torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
    scheduler.step()
    return {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}


def found(state: State, folder: Path) -> list[Finding]:
    torch.save(state, folder / "a.pt")
    return consistency(opened(folder / "a.pt"))


def the_one(state: State, folder: Path) -> Finding:
    (finding,) = found(state, folder)
    assert finding.id in KINDS
    return finding


def test_a_sound_checkpoint_has_no_findings(tmp_path: Path) -> None:
    """Nothing is said of a run that saved everything."""
    model, optimizer = trained()
    state = with_scheduler(optimizer)
    assert found({"model": model.state_dict(), **state}, tmp_path) == []


def test_weights_alone_have_no_findings(tmp_path: Path) -> None:
    """Without an optimizer there is nothing that could disagree."""
    assert found(torch.nn.Linear(2, 2).state_dict(), tmp_path) == []


def test_state_of_nobody(tmp_path: Path) -> None:
    """State whose key no group has is lost by every loader."""
    state = trained()[1].state_dict()
    state["state"][7] = state["state"][0]
    finding = the_one(state, tmp_path)
    assert (finding.id, finding.severity) == ("state-without-parameter", "error")
    assert "state of 7 belongs to no group" in finding.text


def test_parameter_in_two_groups(tmp_path: Path) -> None:
    """A parameter that stands twice is an error."""
    state = trained()[1].state_dict()
    state["param_groups"][1]["params"] = [0, 1]
    assert the_one(state, tmp_path).id == "parameter-twice"


def test_no_state_at_all(tmp_path: Path) -> None:
    """An optimizer that has made no step is a note."""
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.ones(2))])
    finding = the_one(optimizer.state_dict(), tmp_path)
    assert (finding.id, finding.severity) == ("no-state", "note")


def test_no_state_of_a_stranger(tmp_path: Path) -> None:
    """Of an optimizer that liontool does not know, no state may be all that it keeps."""
    group = {"params": [0], "lr": 0.1, "gain": 2.0}
    finding = the_one({"state": {}, "param_groups": [group]}, tmp_path)
    assert finding.text.endswith("nothing was trained with it yet, or it keeps none")


def test_no_state_of_sgd(tmp_path: Path) -> None:
    """SGD without momentum keeps none; with it, no state is no step, or a frozen group."""
    assert found(trained(torch.optim.SGD)[1].state_dict(), tmp_path) == []
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.1, momentum=0.9)
    assert the_one(optimizer.state_dict(), tmp_path).text.endswith("trained with it yet")
    state = trained(torch.optim.SGD, momentum=0.9)[1].state_dict()
    del state["state"][1]
    assert the_one(state, tmp_path).id == "parameter-without-state"
    state["param_groups"][1]["momentum"] = 0
    assert found(state, tmp_path) == []


def test_parameters_without_state_by_name(tmp_path: Path) -> None:
    """Frozen parameters are named where the file has names."""
    state = trained()[1].state_dict()
    del state["state"][1]
    state["param_groups"][0]["param_names"] = ["weight"]
    state["param_groups"][1]["param_names"] = ["bias"]
    finding = the_one(state, tmp_path)
    assert finding.id == "parameter-without-state"
    assert finding.text.endswith(
        "1 parameter has no state (frozen, or never given a gradient): bias"
    )


def test_a_field_that_one_parameter_lacks(tmp_path: Path) -> None:
    """A state that lacks what the others have fails at the next step."""
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(3)]
    optimizer = torch.optim.AdamW(params)
    torch.stack(params).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    del state["state"][2]["exp_avg_sq"]
    finding = the_one(state, tmp_path)
    assert (finding.id, finding.text[:15]) == ("state-field-missing", "2 lack exp_avg_")


def test_a_field_that_one_parameter_has(tmp_path: Path) -> None:
    """What most do without, such as an extra for one kind of weight, nobody lacks."""
    state = trained(Lion)[1].state_dict()
    state["state"][0]["residual"] = torch.zeros(2, 4, dtype=torch.int16)
    assert found(state, tmp_path) == []


def test_moment_of_another_shape(tmp_path: Path) -> None:
    """Moments that disagree in shape are an error at the parameter."""
    state = trained()[1].state_dict()
    state["state"][0]["exp_avg_sq"] = torch.ones(3)
    finding = the_one(state, tmp_path)
    assert (finding.id, finding.where) == ("moment-shape", "0")
    assert finding.text == "exp_avg_sq has shape [3], exp_avg has [2, 4]"


def test_moments_of_another_type_than_the_weights(tmp_path: Path) -> None:
    """Torch turns moments into the type of the weights without a word."""
    model, optimizer = trained()
    state = {"model": model.bfloat16().state_dict(), "optimizer": optimizer.state_dict()}
    finding = the_one(state, tmp_path)
    assert finding.id == "moment-dtype"
    assert finding.text.startswith("moments are float32, the weights bfloat16")


@pytest.mark.parametrize("names", [("model", "ema"), ("ema", "model"), ("a", "model_ema")])
def test_an_average_beside_the_weights(names: tuple[str, str], tmp_path: Path) -> None:
    """Moments are held against the weights they belong to, not against a copy in float32."""
    model, optimizer = trained()
    weights = model.state_dict()
    state: State = {name: weights if "ema" in name else None for name in names}
    for name in names:
        if state[name] is None:
            state[name] = {key: value.bfloat16() for key, value in weights.items()}
    assert the_one({**state, "optimizer": optimizer.state_dict()}, tmp_path).id == "moment-dtype"


def test_a_scale_beside_weights_that_cannot_be_told(tmp_path: Path) -> None:
    """Where shapes do not tell whose a weight is, all count but for single numbers."""
    params = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    optimizer = torch.optim.AdamW([{"params": [param]} for param in params])
    torch.stack(params).sum().backward()
    optimizer.step()
    weights = {str(index): param.data.bfloat16() for index, param in enumerate(params)}
    state = {"model": {**weights, "scale": torch.tensor([2.0])}}
    finding = the_one({**state, "optimizer": optimizer.state_dict()}, tmp_path)
    assert finding.text.startswith("moments are float32, the weights bfloat16:")


def test_moments_of_several_types(tmp_path: Path) -> None:
    """Some moments in bfloat16 are a note."""
    state = trained()[1].state_dict()
    state["state"][1]["exp_avg"] = state["state"][1]["exp_avg"].bfloat16()
    assert the_one(state, tmp_path).id == "moment-dtypes-differ"


def test_groups_at_different_steps(tmp_path: Path) -> None:
    """A group that came late has made fewer steps."""
    state = trained()[1].state_dict()
    state["state"][1]["step"] = torch.tensor(2.0)
    finding = the_one(state, tmp_path)
    assert finding.id == "steps-differ"
    assert finding.text.endswith("3 in group 0; 2 in group 1")


def test_group_without_lr(tmp_path: Path) -> None:
    """A group needs a learning rate."""
    state = trained()[1].state_dict()
    del state["param_groups"][1]["lr"]
    assert the_one(state, tmp_path).id == "no-lr"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("eps", "x"),
        ("betas", (0.9, 1.2)),
        ("betas", (0.9, 1.0)),
    ],
)
def test_hyperparameter_that_no_optimizer_takes(name: str, value: Any, tmp_path: Path) -> None:
    """Negative, infinite or textual hyperparameters are errors in their group."""
    state = trained()[1].state_dict()
    state["param_groups"][1][name] = value
    finding = the_one(state, tmp_path)
    assert (finding.id, finding.where) == ("hyperparameter-range", "group 1")
    assert finding.text.startswith(f"{name} is ")


def test_group_that_lacks_a_field(tmp_path: Path) -> None:
    """What one group has, all need."""
    state = trained()[1].state_dict()
    del state["param_groups"][0]["eps"]
    finding = next(f for f in found(state, tmp_path) if f.id == "group-fields-differ")
    assert (finding.where, finding.text[:9]) == ("group 0", "lacks eps")


def test_lion_with_the_betas_of_adamw(tmp_path: Path) -> None:
    """A beta2 of 0.999 makes Lion's momentum ten times too slow."""
    _, optimizer = trained(Lion, betas=(0.9, 0.999))
    assert [f.id for f in found(optimizer.state_dict(), tmp_path)] == ["lion-betas"] * 2


def test_lion_whose_beta1_is_cycled(tmp_path: Path) -> None:
    """OneCycleLR goes on setting the first beta."""
    _, optimizer = trained(Lion)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    findings = found(with_scheduler(optimizer, scheduler), tmp_path)
    assert [f.id for f in findings] == ["beta1-cycled"] * 2
    assert "between 0.85 and 0.95" in findings[0].text


def test_scheduler_with_too_few_rates(tmp_path: Path) -> None:
    """The number of rates must be that of the groups."""
    state = with_scheduler(trained()[1])
    state["scheduler"]["base_lrs"] = [0.01]
    findings = found(state, tmp_path)
    assert [f.id for f in findings] == ["rate-count"]
    assert "base_lrs has 1 entries for 2 groups" in findings[0].text


def test_scheduler_that_lacks_what_it_needs(tmp_path: Path) -> None:
    """OneCycleLR keeps its curve in the groups; without it the next step fails."""
    optimizer = trained()[1]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=20)
    state = with_scheduler(optimizer, scheduler)
    for group in state["optimizer"]["param_groups"]:
        del group["max_lr"]
    finding = the_one(state, tmp_path)
    assert finding.id == "scheduler-field"
    assert "group 0 has no max_lr" in finding.text


def test_missing_initial_lr(tmp_path: Path) -> None:
    """A scheduler that is made with last_epoch fails without initial_lr."""
    state = with_scheduler(trained()[1])
    for group in state["optimizer"]["param_groups"]:
        del group["initial_lr"]
    finding = the_one(state, tmp_path)
    assert finding.id == "missing-initial-lr"
    assert finding.text.startswith("group 0, 1: has no initial_lr, though CosineAnnealingLR")


def test_rates_that_were_changed_in_one_place_only(tmp_path: Path) -> None:
    """A learning rate that was edited by hand disagrees with the scheduler's record of it."""
    state = with_scheduler(trained()[1])
    state["optimizer"]["param_groups"][1].update(lr=0.5, initial_lr=0.5)
    findings = {f.id: f.text for f in found(state, tmp_path)}
    assert findings.keys() == {"base-lr-differs", "last-lr-differs"}
    assert "in group 1: 0.01 and 0.5; it goes by base_lrs" in findings["base-lr-differs"]
    assert findings["last-lr-differs"].endswith("the next step takes the groups'")


@pytest.mark.parametrize(("steps", "says"), [(1, "once more, then"), (2, "at its last step:")])
def test_one_cycle_at_its_end(steps: int, says: str, tmp_path: Path) -> None:
    """A schedule that raises an error if it is stepped on, or after one more step, is a warning."""
    optimizer = trained()[1]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=3)
    for _ in range(steps):
        scheduler.step()
    finding = the_one(with_scheduler(optimizer, scheduler), tmp_path)
    assert (finding.id, finding.severity) == ("schedule-over", "warning")
    assert says in finding.text
    left = 3 - scheduler.last_epoch
    for _ in range(left):
        scheduler.step()
    with pytest.raises(ValueError, match="Tried to step"):
        scheduler.step()
    assert left == (1 if "once more" in says else 0)


def test_a_rate_that_stays_zero(tmp_path: Path) -> None:
    """A decay that has come to 0 learns nothing any more."""
    optimizer = trained()[1]
    scheduler = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=1)
    finding = the_one(with_scheduler(optimizer, scheduler), tmp_path)
    assert (finding.id, "stays 0" in finding.text) == ("schedule-over", True)


def test_a_rate_of_zero_before_the_first_step(tmp_path: Path) -> None:
    """A scheduler that has not moved yet is not at its end, though nothing will change."""
    optimizer = trained(lr=0.0)[1]
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [])
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    assert found(state, tmp_path) == []


def test_of_two_schedulers_one_has_set_the_rates_of_now(tmp_path: Path) -> None:
    """Only where no scheduler noted the groups' lr down is that a finding."""
    optimizer = trained()[1]
    parts = [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9) for _ in range(2)]
    for part in parts:
        part.step()
    state = {"optimizer": optimizer.state_dict()}
    state |= {f"scheduler{i}": part.state_dict() for i, part in enumerate(parts)}
    assert state["scheduler0"]["_last_lr"] != state["scheduler1"]["_last_lr"]
    assert found(state, tmp_path) == []
    state["scheduler1"]["_last_lr"] = [0.5, 0.5]
    assert the_one(state, tmp_path).id == "last-lr-differs"


def test_scheduler_that_was_not_saved(tmp_path: Path) -> None:
    """Groups with initial_lr were driven by a scheduler."""
    state = with_scheduler(trained()[1])
    assert the_one(state["optimizer"], tmp_path).id == "scheduler-missing"


def test_code_is_outside_of_the_file(tmp_path: Path) -> None:
    """A LambdaLR's factor is in the script."""
    optimizer = trained()[1]
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.5)
    finding = the_one(with_scheduler(optimizer, scheduler), tmp_path)
    assert (finding.id, finding.severity) == ("lr-outside", "note")
    assert "base_lrs (0.01)" in finding.text


def test_scheduler_of_no_one_optimizer(tmp_path: Path) -> None:
    """Of two optimizers that are alike a scheduler drives one, and the file does not say which."""
    state = with_scheduler(trained()[1])
    state["other"] = copy.deepcopy(state["optimizer"])
    assert "scheduler-unpaired" in {finding.id for finding in found(state, tmp_path)}


def test_findings_are_in_the_table() -> None:
    """Every id that the checks use is in the table, with a severity."""
    folder = Path(__file__).parents[2] / "liontool" / "inspect"
    for name in ("state_checks", "group_checks", "scheduler_checks"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8")
        used = set(re.findall(r'Finding\(\s*"([a-z0-9-]+)"', text))
        assert used
        assert used <= KINDS.keys()
